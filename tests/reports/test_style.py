"""The look of the figures: one per policy, set only where asked for."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl

from reports.style import new_figure, paper_style, policy_styles

# Okabe and Ito, "Color Universal Design" (2008), as RGB in 0..255.
_OKABE_ITO = {
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
}


def test_policies_differ_in_colour_and_marker() -> None:
    """Eight policies, known or new, have eight palette colours and markers."""
    names = ["orca", "a", "static", "b", "chunked-prefill", "c", "layered-prefill", "d"]
    styles = policy_styles(names)
    assert list(styles) == names
    rgb = {
        tuple(bytes.fromhex(style.color.removeprefix("#"))) for style in styles.values()
    }
    assert rgb == _OKABE_ITO
    assert len({style.marker for style in styles.values()}) == len(names)
    assert styles["layered-prefill"].label == "layered prefill"


def test_known_policies_look_the_same_in_any_company() -> None:
    """A colour stands for one policy in every figure."""
    alone = policy_styles(["orca"])["orca"]
    assert policy_styles(["x", "static", "orca"])["orca"] == alone


def test_settings_end_with_the_block_and_ignore_the_users_own() -> None:
    """Inside, our defaults; outside, whatever the user had."""
    with mpl.rc_context({"font.size": 33.0, "lines.linestyle": ":"}):
        with paper_style():
            assert mpl.rcParams["font.size"] == 8.0
            assert mpl.rcParams["lines.linestyle"] == "-"
            assert mpl.rcParams["svg.hashsalt"] == "servescope"
        assert mpl.rcParams["font.size"] == 33.0
        assert mpl.rcParams["lines.linestyle"] == ":"


def test_a_long_title_is_broken_into_lines() -> None:
    """A title wider than the page does not run off it."""
    with paper_style():
        figure = new_figure(2.0, "word " * 60)
        figure.draw_without_rendering()
        title = figure.texts[0].get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.width


def test_importing_reports_does_not_import_matplotlib() -> None:
    """The command line stays quick as long as nothing is drawn."""
    code = "import sys, reports.compare; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_many_policies_are_told_apart_by_colour_and_marker() -> None:
    """More policies than colours: still no two alike."""
    styles = policy_styles([f"policy-{k}" for k in range(40)])
    looks = {(style.color, style.marker) for style in styles.values()}
    assert len(looks) == 40
