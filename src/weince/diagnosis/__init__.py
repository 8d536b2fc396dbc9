"""`weince diagnose` and `weince noise-floor`: is the tail of these embeddings Weibull?"""

from importlib.util import find_spec

for _library in ("jinja2", "matplotlib", "numpy", "plotly", "pyarrow", "rich", "safetensors", "scipy", "tyro"):
    if find_spec(_library) is None:
        raise ImportError(f"weince.diagnosis needs {_library}, which is not installed: pip install 'weince[diagnose]'")
