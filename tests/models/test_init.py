"""What `import models` does and does not do, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers.utils import import_utils

import models

ROOT = Path(models.__file__).parents[1]


def python(code: str, *path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(p) for p in (ROOT, *path)), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


LOAD = """
import json, pathlib, sys
import models
import torch
from transformers import AutoModelForCausalLM
found = {}
for folder in pathlib.Path(FOLDER).iterdir():
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    logits = model(torch.tensor([[1, 2, 3]])).logits[0, -1, :5].tolist()
    found[folder.name] = {"class": type(model).__name__, "logits": logits}
found["heavy"] = [m for m in ("sae_lens", "mlflow", "datasets", "lm_eval", "typer") if m in sys.modules]
print(json.dumps(found))
"""


def test_saved_folders_load_in_a_process_that_imports_only_models(tmp_path):
    here = {}
    for name in models.ARCHITECTURES:
        torch.manual_seed(0)
        model = models.build(name, d_model=16, n_heads=2, n_layers=2, vocab_size=8).eval()
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            here[name] = (type(model).__name__, model(torch.tensor([[1, 2, 3]])).logits[0, -1, :5])
    done = python(f"FOLDER = {str(tmp_path)!r}\n{LOAD}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("heavy") == []
    assert set(found) == set(here)
    for name, (kind, logits) in here.items():
        assert found[name]["class"] == kind
        torch.testing.assert_close(torch.tensor(found[name]["logits"]), logits, rtol=1e-5, atol=1e-6)


def hub_kernels_installed(folder: Path) -> Path:
    """A folder that holds the metadata of Hugging Face's `kernels`, in a version that transformers would use."""
    info = folder / "kernels.dist-info"
    info.mkdir()
    version = import_utils.KERNELS_MIN_VERSION
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    (info / "RECORD").write_text("")
    return folder


IMPORT_LLAMA = "from transformers.models.llama.modeling_llama import LlamaAttention"


def test_llama_imports_with_hugging_faces_kernels_installed_beside_ours(tmp_path):
    folder = hub_kernels_installed(tmp_path)
    unmended = python(IMPORT_LLAMA, folder)
    assert unmended.returncode != 0, "transformers no longer imports the name: the mend in models/__init__.py can go"
    assert "kernels" in unmended.stderr
    mended = python(
        f"import models, kernels\n{IMPORT_LLAMA}\nassert kernels.__file__.startswith({str(ROOT)!r})\n"
        "from transformers.utils import is_kernels_available\nassert not is_kernels_available()",
        folder,
    )
    assert mended.returncode == 0, mended.stderr
