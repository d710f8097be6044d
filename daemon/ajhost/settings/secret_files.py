"""Finds files that settings name, among systemd's credentials first. Refuses secret ones that others may read, keys
with a passphrase, and other content than the setting is for. A secret in a settings file: `validation.py`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ajhost.protocol.credential_files import CredentialsError, read_seed, read_user_credentials, read_word
from ajhost.protocol.secret_masking import hidden, may_be_secret
from ajhost.settings.configuration_files import read_whole
from ajhost.settings.errors import InvalidValue

_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_LONGEST_NAME = 100
_NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)*\Z|(/[\w.+-]+)+\Z")
_SUFFIX = re.compile(r"\.[A-Za-z]{2,8}\Z")
_REPLACED = re.compile(r"^~|[$*?]|%[a-zA-Z]")
"""Texts that a shell or systemd would expand in a name, and ajhost does not."""


@dataclass(frozen=True, slots=True)
class Files:
    """Finds files. A relative name is looked for in `credentials` ($CREDENTIALS_DIRECTORY, if there is one), then in
    `directory`, which is that of the configuration.

    Every method raises `InvalidValue` for a file that is missing, unreadable or of another kind.
    """

    directory: Path
    credentials: Path | None

    def find(self, name: str) -> Path:
        """Returns the first existing path of `name`."""
        places = [self.directory / name]
        if self.credentials is not None:
            # LoadCredential= of a whole directory joins its name and the file's by "_" (systemd.exec(5))
            places[:0] = [self.credentials / name, self.credentials / name.replace("/", "_")]
        for place in places:
            try:
                place.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                found, allowed = _trouble(place, error), "a file that this user can read"
                forbidden = isinstance(error, PermissionError)
                if forbidden and self.credentials and not place.is_relative_to(self.credentials):
                    # only root may enter the directory; systemd passes its files to the service as credentials
                    given = ", ".join(sorted(path.name for path in self.credentials.iterdir())) or "none"
                    found = f"{name!r}, which is none of the unit's credentials" if _is_name(name) else hidden(name)
                    allowed = f"one of those that it was given: {given}"
                raise InvalidValue(found, allowed) from None
            return place
        where = " or ".join(dict.fromkeys(str(place.parent) for place in places))
        what = f"no file {Path(name).name!r}" if _is_name(name) else f"the name of no file, {hidden(name)},"
        raise InvalidValue(f"{what} in {where}", f"the name of a file that this user can read{as_it_is(name)}")

    def read(self, name: str) -> tuple[Path, str]:
        """Returns the path of `name`, and its text."""
        path = self.find(name)
        return path, _text(path)

    def read_secret(self, name: str) -> tuple[Path, str]:
        """As `read`, for a file that only its owner may read, by its mode. The modes of credentials are not checked,
        since systemd protects their directory.
        """
        path = self.find(name)
        found = path.stat()
        mode = found.st_mode
        if not stat.S_ISREG(mode):
            raise InvalidValue(f"{path}, {kind(mode)}", "a text file that this user can read")
        if mode & _OTHERS and not self._is_credential(path) and not _is_for_our_group(found):
            raise InvalidValue(
                f"{path} with mode {stat.S_IMODE(mode):04o}, open to its group or to others",
                f"a file for its owner alone: chmod 600 {path}",
            )
        return path, _text(path)

    def word(self, name: str) -> Path:
        """Returns the path of a secret file of one line: a password, a token."""
        return self._checked(name, read_word, "a file of one line")

    def creds(self, name: str) -> Path:
        """Returns the path of a NATS credentials file."""
        return self._checked(name, read_user_credentials, "a NATS credentials file")

    def nkey(self, name: str) -> Path:
        """Returns the path of a file with the seed of a user's nkey."""
        return self._checked(name, read_seed, "a file with one nkey seed, SU...")

    def _checked(self, name: str, read: Callable[[bytes], object], allowed: str) -> Path:
        """Returns the path of a secret file that `read` can parse. Each log-in reads the content of the file anew."""
        path, text = self.read_secret(name)
        try:
            read(text.encode())
        except CredentialsError as error:
            raise InvalidValue(f"{path}, which {error}", allowed) from None
        return path

    def certificates(self, name: str) -> Path:
        """Returns the path of a PEM file of certificates. If it also has a private key, it must be secret."""
        path, text = self.read(name)
        if "CERTIFICATE-----" not in text:
            raise InvalidValue(f"{path}, which holds no certificate", "a PEM file with certificates")
        if "PRIVATE KEY-----" in text:
            return self.private_key(name)
        return path

    def private_key(self, name: str) -> Path:
        """Returns the path of a PEM file with a private key that needs no passphrase."""
        path, text = self.read_secret(name)
        if "PRIVATE KEY-----" not in text:
            raise InvalidValue(f"{path}, which holds no private key", "a PEM file with a private key")
        if "ENCRYPTED" in text:
            raise InvalidValue(f"{path}, whose key needs a passphrase", "a key without a passphrase")
        return path

    def _is_credential(self, path: Path) -> bool:
        return self.credentials is not None and path.resolve().is_relative_to(self.credentials.resolve())


def _is_for_our_group(found: os.stat_result) -> bool:
    """Whether the file belongs to root and one of this process's groups, and no one else may read it.

    Kubernetes mounts secrets in this way (`fsGroup`).
    """
    groups = {os.getegid(), *os.getgroups()}
    for_group = not found.st_mode & (stat.S_IWGRP | stat.S_IRWXO)
    return os.geteuid() != 0 and found.st_uid == 0 and found.st_gid in groups and for_group


def _is_name(text: str) -> bool:
    """Whether a text looks like a file's name, with a directory or a suffix, and not like the secret itself."""
    if len(text) > _LONGEST_NAME or may_be_secret(text) or not _NAME.match(text):
        return False
    return "/" in text or _SUFFIX.search(text) is not None


def as_it_is(name: str) -> str:
    """Returns a hint for a name with a text that a shell would expand; else an empty text."""
    found = _REPLACED.search(name)
    return "" if found is None else f"; {found[0]} is not replaced here"


def kind(mode: int) -> str:
    """Returns in words what a path is that is no file."""
    return "a directory" if stat.S_ISDIR(mode) else "no regular file"


def _text(path: Path) -> str:
    allowed = "a text file that this user can read"
    try:
        content, _ = read_whole(path)
        return content.decode()
    except OSError as error:
        raise InvalidValue(_trouble(path, error), allowed) from None
    except InvalidValue as unfit:
        raise InvalidValue(f"{path}, {unfit.found}", allowed) from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{path}, which is not UTF-8", allowed) from None


def absent(name: str, path: Path, error: OSError | ValueError) -> str:
    """As `_trouble`, for a name that may be a secret and no path."""
    return hidden(name) if may_be_secret(name) else _trouble(path, error)


def _trouble(path: Path, error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{path}: {(reason or str(error)).lower()}"
