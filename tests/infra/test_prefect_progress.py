"""The text of a progress line."""

from __future__ import annotations

from infra.prefect_progress import describe


def test_rate_and_time_left_count_from_the_first_call():
    assert describe(12, 36, "Mini03", "recordings", started=100, first=6, now=160) == (
        "12/36 recordings, 6.0 a minute, 4:00 left: Mini03"
    )


def test_no_rate_before_anything_is_done():
    assert describe(3, 36, "", "recordings", started=100, first=3, now=160) == "3/36 recordings"
