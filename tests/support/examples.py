"""How many examples of a law are drawn: fewer by default if they take long, all of them by `make stress`."""

from hypothesis import settings

# `pytest --hypothesis-profile thorough` loads it.
THOROUGH = "thorough"


def few(count: int, *, thorough: int = 100) -> settings:
    """Draw `count` examples of a test; `thorough` examples if the profile of that name is loaded."""
    return settings(max_examples=thorough if settings.get_current_profile_name() == THOROUGH else count)
