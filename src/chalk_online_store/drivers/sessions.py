"""Sessions of boto3: it is slow to import, and so only where one is needed."""

from __future__ import annotations

from chalk_online_store.drivers.credentials import Session
from chalk_online_store.errors import InvalidURL


def session_of(profile: str | None) -> Session:
    """A session with the credentials of a profile, or of the environment; raises `InvalidURL`."""
    import boto3
    from botocore.exceptions import ProfileNotFound

    try:
        session: Session = boto3.Session(profile_name=profile)
    except ProfileNotFound as error:
        raise InvalidURL(f"{error}: check the profile's name, or AWS_PROFILE.") from None
    return session
