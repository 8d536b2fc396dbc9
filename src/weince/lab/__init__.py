"""The lab: train encoders with two losses alike, freeze them, and report which features are better."""

from importlib.util import find_spec

for _library in (
    "filelock", "jinja2", "kornia", "lightning", "matplotlib", "PIL", "plotly", "pyarrow", "pydantic", "rich",
    "safetensors", "scipy", "sklearn", "tensorboard", "threadpoolctl", "timm", "tomli_w", "torchvision", "tyro",
):  # fmt: skip
    if find_spec(_library) is None:
        raise ImportError(f"weince.lab needs {_library}, which is not installed: pip install 'weince[lab]'")
