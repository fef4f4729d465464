"""What tests of letters begin with."""

from pathlib import Path

import pytest

from notification_mailer.gateways.letters import Letters
from tests.support.letters import letters_of


@pytest.fixture
def letters(tmp_path: Path) -> Letters:
    """Letters of a controller named A with the officer privacy@example.org, in Berlin."""
    return letters_of(tmp_path)
