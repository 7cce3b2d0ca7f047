"""``module:functions``: from a name to the functions of an application, in any process.

Processes of an application are told where its code is, not given the code: each imports the
module by itself. That is what lets a coordinator that Ray restarted hours later come up from
plain data, and it keeps pickled closures out of everything.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from statefun_ray.cluster.errors import BadTarget
from statefun_sdk.functions import StatefulFunctions

_USAGE = "write module:name, for example my_app:functions for 'functions = StatefulFunctions()' in my_app.py"


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where an application's embedded functions are found.

    Attributes:
        targets: ``module:name`` each; name may be dotted. None for one whose functions are all remote.
        sys_path: folders that the module's imports need, in order. Relative ones are taken from
            the process's working directory, which in a Ray job is the uploaded one on every node.
    """

    targets: tuple[str, ...]
    sys_path: tuple[str, ...]

    @property
    def module(self) -> str:
        """The dotted module of the first target; empty without one."""
        return self.targets[0].partition(":")[0] if self.targets else ""


def source_of_targets(*targets: str) -> AppSource:
    """Return where ``targets``, as written on a command line or in a module, are to be found.

    Raises:
        BadTarget: one is not of the form ``module:name``.
    """
    for target in targets:
        _check_form(target)
    # A console script does not have the working directory on its path; `python -m` does.
    return AppSource(targets, _search_path(os.getcwd()))


def _check_form(target: str) -> None:
    module, colon, name = target.partition(":")
    if not colon or not module or not name:
        raise BadTarget(target, "this names no object in a module", _USAGE)
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise BadTarget(target, f"{module!r} is a file, not a module", f"say {dotted}:{name}")


def source_of_functions(functions: StatefulFunctions) -> AppSource:
    """Return the importable name of functions that a running program holds.

    Raises:
        BadTarget: they are not a global of any imported module.
    """
    for module_name, module in list(sys.modules.items()):
        variables = getattr(module, "__dict__", None)
        if module_name == "__mp_main__" or not isinstance(variables, dict):
            continue
        for name, value in list(variables.items()):
            if value is functions:
                if module_name != "__main__":
                    return AppSource((f"{module_name}:{name}",), _search_path(os.getcwd()))
                return _source_of_main(name)
    raise BadTarget(
        "run(functions)",
        "these functions are not a global variable of any module, so worker processes cannot import them",
        "assign them to a variable at the top level of a file",
    )


def _source_of_main(name: str) -> AppSource:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        target = f"{spec.name.removesuffix('.__main__')}:{name}"
        return AppSource((target,), _search_path(os.getcwd()))
    file = getattr(main, "__file__", None)
    if file is None or not str(file).endswith(".py"):
        raise BadTarget(
            "run(functions)",
            "these functions were defined interactively, so worker processes cannot import them",
            "put them into a file",
        )
    path = Path(file).resolve()
    return AppSource((f"{path.stem}:{name}",), _search_path(str(path.parent), os.getcwd()))


def _search_path(*folders: str) -> tuple[str, ...]:
    """Return ``folders`` in both readings: absolute here, and relative to the working directory."""
    here = os.getcwd()
    found: dict[str, None] = {}
    for folder in folders:
        absolute = os.path.realpath(folder)
        relative = os.path.relpath(absolute, os.path.realpath(here))
        if not relative.startswith(".."):
            found[relative] = None
        found[absolute] = None
    return tuple(found)


def extend_sys_path(folders: tuple[str, ...]) -> None:
    """Put those of ``folders`` that exist here in front of the module search path."""
    here = [os.path.realpath(folder) for folder in folders if os.path.isdir(folder)]
    for folder in reversed(list(dict.fromkeys(here))):
        if folder not in sys.path:
            sys.path.insert(0, folder)


_importing = ""
"""The target whose module is being imported right now."""


def check_not_importing() -> None:
    """Refuse to start an application from within the import of its own module.

    Raises:
        BadTarget: ``run`` stands at the top level of a module that every process imports.
    """
    if _importing:
        raise BadTarget(
            _importing,
            "run() is called while the module is imported, and every process of the application imports it",
            "put the call under: if __name__ == '__main__':",
        )


def load_functions(source: AppSource) -> StatefulFunctions:
    """Import and return the functions of an application, those of several targets as one.

    Raises:
        BadTarget: a module cannot be imported, holds no such functions, or binds one again.
    """
    global _importing
    extend_sys_path(source.sys_path)
    loaded: list[StatefulFunctions] = []
    for target in source.targets:
        _importing = target
        try:
            loaded.append(_load(target, source.sys_path))
        finally:
            _importing = ""
    return loaded[0] if len(loaded) == 1 else _merged(source.targets, loaded)


def _merged(targets: tuple[str, ...], loaded: list[StatefulFunctions]) -> StatefulFunctions:
    merged = StatefulFunctions()
    bound_by: dict[str, str] = {}
    for target, functions in zip(targets, loaded, strict=True):
        for typename, function in functions.functions.items():
            if typename in bound_by:
                raise BadTarget(
                    target, f"function {typename} is bound by {bound_by[typename]} already", "bind it once"
                )
            bound_by[typename] = target
            merged.register(
                typename,
                function.fun,
                function.specs,
                accepts=function.accepts,
                blocking=function.blocking,
            )
    return merged


def _load(target: str, sys_path: tuple[str, ...]) -> StatefulFunctions:
    module_name, _, name = target.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            looked = sys_path[-1] if sys_path else os.getcwd()
            raise BadTarget(
                target,
                f"there is no module {module_name!r} (looked in {looked} and the installed packages)",
                "check the spelling, or start from the folder that holds it",
            ) from None
        raise _import_failed(target, error) from error
    except BadTarget:
        raise
    # SystemExit too: a command that ends without a word, and with the code the module likes, helps nobody.
    except (Exception, SystemExit) as error:
        raise _import_failed(target, error) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadTarget(
                target,
                f"{module_name} has no {name!r}",
                _advice(module_name),
            )
        found = getattr(found, part)
    if not isinstance(found, StatefulFunctions):
        raise BadTarget(
            target,
            f"{name!r} is of type {type(found).__name__}, not StatefulFunctions",
            _advice(module_name),
        )
    if not found.functions:
        raise BadTarget(target, "no function is bound", "bind one with @functions.bind('namespace/name')")
    return found


def _advice(module_name: str) -> str:
    variables = vars(sys.modules[module_name])
    found = [name for name, value in variables.items() if isinstance(value, StatefulFunctions)]
    if found:
        return "say " + " or ".join(f"{module_name}:{name}" for name in found)
    return f"there are no StatefulFunctions in {module_name}; {_USAGE}"


def _import_failed(target: str, error: BaseException) -> BadTarget:
    """Return an error that shows the traceback of the user's code, without the way through the import system."""
    shown = traceback.TracebackException.from_exception(error)
    links = [shown]
    while links:
        link = links.pop()
        link.stack = traceback.StackSummary.from_list(
            [
                frame
                for frame in link.stack
                if frame.filename not in (__file__, importlib.__file__)
                and not frame.filename.startswith("<frozen importlib")
            ]
        )
        links += [earlier for earlier in (link.__cause__, link.__context__) if earlier is not None]
    module_name = target.partition(":")[0]
    text = "".join(shown.format()).rstrip()
    return BadTarget(target, f"importing {module_name} failed", f"mend what it raised:\n{text}")
