import getpass
import platform
import subprocess

import torch

from harness.tables import provenance


def test_provenance_names_no_path_host_or_user():
    text = provenance.collect("config", "corpus", "float32", "cpu").model_dump_json()
    for secret in (str(provenance.CHECKOUT), "/home/", "/tmp/", "/usr/", platform.node()):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_provenance_tells_versions_threads_and_hardware():
    found = provenance.collect("config", "corpus", "float32", "cpu")
    assert found.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]  # the build may be left out
    assert found.packages.keys() >= {"numpy", "mlflow", "transformers"}
    assert found.threads == torch.get_num_threads()
    assert found.hardware.cores >= 1
    assert found.hardware.memory_gib > 0


def test_commit_and_changes_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit() == (None, None)

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )

    (tmp_path / "results").mkdir()
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "results" / "table.md").write_text("1")
    git("init", "-q")
    assert provenance.git_commit() == (None, None)
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "results" / "table.md").write_text("2")
    (tmp_path / "untracked").write_text("2")
    assert provenance.git_commit() == (commit, False)
    (tmp_path / "code.py").write_text("2")
    assert provenance.git_commit() == (commit, True)
