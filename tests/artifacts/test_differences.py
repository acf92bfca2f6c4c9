"""Settings are shown in words."""

from orchestrator.artifacts.differences import format_value


def test_values_are_shown_in_words() -> None:
    shown = {
        None: "-", "": "-", (): "-", True: "true", 0.5: "0.5", ("flip", "zoom"): "flip, zoom", "adamw": "adamw",
    }  # fmt: skip
    assert {value: format_value(value) for value in shown} == shown
    assert format_value({}) == format_value([]) == "-"
    assert format_value({"<30": 2.0, ">=60": 0.5}) == "<30 x 2, >=60 x 0.5"
