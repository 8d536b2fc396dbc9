"""The lab: which loss is better on a task, tuned alike; on the tasks that lie here, and in a loop of your own."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weince.lab.engine.plan import Range
    from weince.lab.tasks.own import Arm, compare

__all__ = ["Arm", "Range", "compare"]

for _library in (
    "filelock", "jinja2", "kornia", "lightning", "matplotlib", "PIL", "plotly", "pyarrow", "pydantic", "rich",
    "safetensors", "scipy", "sklearn", "tensorboard", "threadpoolctl", "timm", "tomli_w", "torchvision", "tyro",
):  # fmt: skip
    if find_spec(_library) is None:
        raise ImportError(f"weince.lab needs {_library}, which is not installed: pip install 'weince[lab]'")


def __getattr__(name: str) -> Any:
    # Asked for when it is used: the commands refuse what they can before anything heavy is imported.
    if name in ("Arm", "compare"):
        return getattr(import_module("weince.lab.tasks.own"), name)
    if name == "Range":
        return import_module("weince.lab.engine.plan").Range
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
