"""How many examples of a law are drawn: fewer by default for those whose examples take long, all of them for stress."""

from hypothesis import settings

# `pytest --hypothesis-profile thorough` loads it; see `make stress`.
THOROUGH = "thorough"


def few(count: int) -> settings:
    """Draw `count` examples of a test; as many as Hypothesis draws by default if the profile is `thorough`."""
    return settings() if settings.get_current_profile_name() == THOROUGH else settings(max_examples=count)
