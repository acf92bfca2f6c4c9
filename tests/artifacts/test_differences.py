"""Settings are shown in words."""

from orchestrator.artifacts.differences import in_words


def test_values_are_shown_in_words() -> None:
    shown = {
        None: "-", "": "-", (): "-", True: "true", 0.5: "0.5", ("flip", "zoom"): "flip, zoom", "adamw": "adamw",
    }  # fmt: skip
    assert {value: in_words(value) for value in shown} == shown
    assert in_words({}) == in_words([]) == "-"
    assert in_words({"<30": 2.0, ">=60": 0.5}) == "<30 x 2, >=60 x 0.5"
