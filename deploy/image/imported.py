"""Prints the files in a folder of all modules that kgents' processes import, and of what those import: these are
compiled into the image. Of the SDKs most modules are never imported; their code would be as large again.
"""

import importlib
import pkgutil
import sys

import kgents

SDKS = ("alembic.command", "anthropic", "google.genai", "openai", "uvloop", "uvicorn")


def main() -> None:
    """Import everything, and print what of it came from the folder that is named."""
    names = [module.name for module in pkgutil.walk_packages(kgents.__path__, "kgents.")]
    for name in (*names, *SDKS, *(f"pydantic_ai.models.{each}" for each in ("anthropic", "google", "openai"))):
        if not name.endswith((".__main__", ".env")):
            importlib.import_module(name)
    files = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    wanted = [file for file in sorted(files) if file.startswith(sys.argv[1]) and file.endswith(".py")]
    sys.stdout.writelines(f"{file}\n" for file in wanted)


if __name__ == "__main__":
    main()
