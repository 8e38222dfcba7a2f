"""Starts Darkroom: `python webui.py` serves, `python webui.py --help` lists the rest."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main(arguments):
    """Prepare the environment, then do what ``arguments`` ask for; returns the exit status."""
    from modules.core.errors import DarkroomError
    from modules.launcher import commands, environment, terminal

    try:
        call = commands.parse(arguments)
        environment.prepare(ROOT, call.flags, arguments, tests=call.command == commands.TEST)
        terminal.warn(call.warnings)
        return run(call)
    except DarkroomError as error:
        terminal.fail(error)
        return 1
    except KeyboardInterrupt:
        return 130


def run(call):
    """Serve, make pictures, work on models, look at one, run the tests, or see to extensions."""
    from modules.launcher import commands, testing

    if call.command == commands.TEST:
        return testing.run(ROOT, call.rest)
    if call.command in commands.ON_EXTENSIONS:
        from modules.launcher import extensions

        return extensions.carry_out(ROOT, call.flags, call.command, call.word, call.yes)
    if call.command in commands.MAKING:
        from modules.app.command_line import txt2img

        return txt2img(call.txt2img, call.flags)
    if call.work is not None:
        from modules.app.work_command import carry_out

        return carry_out(call.work, call.flags)
    if call.command == commands.INSPECT:
        from modules.app.inspect_command import inspect

        return inspect(call.inspect, call.flags)
    from modules.app.app import create
    from modules.web.site import serve

    serve(create(call.flags), call.flags)
    return 0


if __name__ == "__main__":  # the engine's process imports this module again and must do nothing
    if not ((3, 11) <= sys.version_info[:2] <= (3, 13)) and "--skip-python-version-check" not in sys.argv:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit("Darkroom needs Python 3.11, 3.12 or 3.13, not " + found + ": start it with `python3.12 webui.py`.")
    sys.exit(main(sys.argv[1:]))
