"""Values are written as TOML that reads back as they were."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.toml import parse_toml, toml_value


@given(st.text(max_size=30))
def test_text_survives_toml(text: str) -> None:
    assert parse_toml(f"value = {toml_value({'a b': [text, True, 0.1]})}", "")["value"] == {"a b": [text, True, 0.1]}
