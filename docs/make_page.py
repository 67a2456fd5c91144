"""Draws docs/serving-page.png: the page of a server in Chromium, two decoders beside each other, each in its midst.

    lrd-jax serve --also plain &
    python docs/make_page.py

Needs playwright and a Chromium.
"""

import shutil
from pathlib import Path

import tyro
from playwright.sync_api import Locator, expect, sync_playwright

PROBLEM = "Tom counts 3 eggs. Cara brings 4 eggs. Tom gives Cara 5. The number is tripled. Cara takes 5 eggs. "
QUESTION = PROBLEM + "How many eggs remain?"
WIDTH = 1000  # CSS pixels


def main(url: str = "http://127.0.0.1:8000/") -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 700}, device_scale_factor=1.5)
        page.goto(url)
        expect(page.locator("#right option")).not_to_have_count(0)
        page.locator("#right").select_option("plain")
        page.locator("#length").fill("32")
        page.locator("#question").fill(QUESTION)
        page.locator("#ask").click()
        expect(page.locator("#ask")).to_be_enabled(timeout=60_000)
        for view, forward in zip(page.locator(".view").all(), (1, 12), strict=True):
            go_to(view, forward)
        page.locator("h1").click()  # takes the focus away
        legend = page.locator("#legend").bounding_box()
        assert legend is not None
        height = legend["y"] + legend["height"] + 14
        target = Path(__file__).parent / "serving-page.png"
        page.screenshot(path=target, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()


def go_to(view: Locator, forward: int) -> None:
    view.get_by_label("forward", exact=True).press("Home")
    for _ in range(forward):
        view.get_by_label("a forward on").click()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
