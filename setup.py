"""Build the package. Everything that can be said in a table stands in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Ship `configs/` as `detectron2/model_zoo/configs`; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._config_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs + [str(target) for _, target in self._config_files()]

    def _config_files(self) -> list[tuple[Path, Path]]:
        folder = ROOT / "configs"
        target = Path(self.build_lib) / "detectron2" / "model_zoo" / "configs"
        files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".yaml", ".py"))
        return [(path, target / path.relative_to(folder)) for path in files]


setup(cmdclass={"build_py": BuildWithConfigs})
