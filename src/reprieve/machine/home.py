"""Where what is of a user alone is kept, by the XDG Base Directory Specification."""

import os

from reprieve.model.finding import Failure

INSTEAD = "set XDG_STATE_HOME, or HOME, to a folder of yours that can be written to"


def state_folder() -> str:
    """XDG_STATE_HOME, else .local/state of the home folder. Raises Failure: there is none.

    A path that is not absolute is none, as the specification has it, and an empty HOME is not /.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return given
    home = os.environ.get("HOME") or _told_home()
    if not home.startswith("/"):
        raise Failure("there is no home folder in which it could be kept", hint=INSTEAD)
    return os.path.join(home, ".local/state")


def _told_home() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # no such user here: a container
        return ""
