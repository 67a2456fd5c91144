"""The page in a browser: asked by keyboard and by hand, forwards walked, decoders compared, holes filled."""

import contextlib
import json
import re
import shutil

import pytest
from serving import eventually, held, started

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'lrd-jax[test]'")
expect = sync_api.expect

PROMPT = "The second prompt is longer."
PHONE = {"width": 375, "height": 700}


@pytest.fixture(scope="module")
def browser():
    installed = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, installed), None)
    with contextlib.ExitStack() as stack:
        try:
            playwright = stack.enter_context(sync_api.sync_playwright())
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Exception as error:  # playwright's own driver may not start either
            pytest.skip(f"no Chromium: apt install chromium, or playwright install chromium ({str(error)[:80]})")
        yield browser
        browser.close()


class Seen:
    """A page, what its console said, and who was asked."""

    def __init__(self, page):
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def view(self, number=0):
        return self.page.locator(".view").nth(number)

    def ask(self, question=PROMPT, **fields):
        for name, value in fields.items():
            self.page.locator(f"#{name}").fill(str(value))
        self.page.locator("#question").fill(question)
        self.page.locator("#ask").click()
        expect(self.page.locator("#ask")).to_be_enabled()


@pytest.fixture
def opened(browser, server):
    """Opens the page of a server; at the end the console is clean, and nobody else was asked."""
    contexts, all_seen = [], []

    def open_(url=server.url, **options):
        contexts.append(browser.new_context(**options))
        seen = Seen(contexts[-1].new_page())
        all_seen.append((url, seen))
        seen.page.goto(url)
        return seen

    yield open_
    for context in contexts:
        context.close()
    for url, seen in all_seen:
        assert not seen.said
        assert all(address.startswith((url, "data:,")) for address in seen.asked)


def answered(server, **lrd):
    """What the API answers, and its facts."""
    asked = {"lrd": lrd} if "canvas" in lrd else {"lrd": lrd, "max_tokens": 16}
    body = {"messages": [{"role": "user", "content": PROMPT}], **asked}
    (choice,) = server.post("/v1/chat/completions", body).json()["choices"]
    return choice["message"]["content"], choice["lrd"]


def classes(view):
    return [cell.get_attribute("class").split()[1] for cell in view.locator(".cell").all()]


def test_it_is_asked_and_walked_by_keyboard_alone(server, opened):
    seen = opened()
    page, view = seen.page, seen.view()
    expect(page.locator("#left option")).to_have_count(2)
    text, facts = answered(server)
    page.locator("#length").fill("16")
    page.locator("#question").focus()
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    expect(view.locator(".said")).to_contain_text(f"{facts['forwards']} forward")
    assert view.locator(".answer").text_content() == text
    assert set(classes(view)) == {"done"}
    for _ in range(20):  # to the slider, over whatever there is before it
        page.keyboard.press("Tab")
        if page.locator(":focus").get_attribute("aria-label") == "forward":
            break
    page.keyboard.press("Home")
    expect(view.locator("h2")).to_contain_text("forward 0")
    assert classes(view) == ["masked"] * 16
    page.keyboard.press("ArrowRight")
    expect(view.locator("h2")).to_contain_text(re.compile(r"forward [1-9]"))
    assert "soft" in classes(view)
    sure = view.locator(".soft").first
    assert sure.get_attribute("title").startswith("best guess, 0.") and "rgba" in sure.get_attribute("style")
    page.keyboard.press("End")
    expect(view.locator("h2")).to_contain_text(f"forward {facts['forwards']}")
    expect(view.locator("svg path[stroke='var(--kl)']")).to_have_count(2)  # a line, and its points
    expect(view.locator("svg path[stroke='var(--entropy)']")).to_have_count(2)


def test_two_decoders_stand_side_by_side(server, opened):
    seen = opened(viewport={"width": 1000, "height": 800})
    seen.page.locator("#right").select_option("fast")
    seen.ask(length=16)
    texts = [answered(server, preset=preset)[0] for preset in ("lrd", "fast")]
    assert [seen.view(number).locator(".answer").text_content() for number in (0, 1)] == texts
    left, right = (seen.view(number).bounding_box() for number in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    before = seen.view(1).locator("h2").text_content()
    seen.view(0).get_by_label("a forward back").click()
    assert seen.view(1).locator("h2").text_content() == before  # each is walked by itself
    seen.view(0).get_by_label("play all forwards").click()
    expect(seen.view(0).locator("h2")).to_contain_text("forward 0")
    expect(seen.view(0).locator("h2")).to_contain_text(re.compile(r"forward [1-9]"))


def test_holes_are_filled(server, opened):
    seen = opened()
    text, facts = answered(server, canvas="ab{10}cd{2}")
    seen.ask(canvas="ab{10}cd{2}")
    assert seen.view().locator(".answer").text_content() == text
    assert json.dumps(facts["holes"][1], ensure_ascii=False) in seen.view().locator(".said").text_content()
    seen.view().get_by_label("a forward back").focus()
    for _ in range(facts["forwards"]):
        seen.page.keyboard.press("Enter")
    assert classes(seen.view()) == ["done"] * 2 + ["masked"] * 10 + ["done"] * 2 + ["masked"] * 2


def test_the_active_block_has_edges_and_guesses_their_confidence(opened):
    def chunk(forward, ids, **more):
        canvas = {
            "forward": forward,
            "refining": False,
            "window": [2, 4],
            "ids": ids,
            "divergence": None,
            "entropy": 0.5,
        }
        texts = {"text": [None if i is None else f"t{i}" for i in ids], **more}
        return {"choices": [{"index": 0, "delta": {}, "finish_reason": None, "lrd": {"canvas": canvas | texts}}]}

    guesses = {"guess": [None, None, "<b>&", "", None, None], "confidence": [None, None, 0.8, 0.1, None, None]}
    chunks = [chunk(3, [7, 8, None, None, None, None], **guesses)]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    seen = opened()
    seen.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    seen.ask()
    cells = seen.view().locator(".cell")
    assert classes(seen.view()) == ["done", "done", "soft", "soft", "masked", "masked"]
    assert ["edge" in cell.get_attribute("class") for cell in cells.all()] == [False, False, True, False, True, False]
    assert [cell.text_content() for cell in cells.all()] == ["t7", "t8", "<b>&", "·", " ", " "]
    shades = [cells.nth(place).evaluate("cell => getComputedStyle(cell).backgroundColor") for place in (2, 3)]
    assert [float(shade.rpartition(",")[2].strip(" )")) for shade in shades] == pytest.approx([0.4, 0.05], abs=0.01)


def test_a_phone_and_the_dark(opened):
    grounds = []
    for scheme in ("light", "dark"):
        seen = opened(viewport=PHONE, color_scheme=scheme)
        seen.page.locator("#right").select_option("fast")
        seen.ask(length=32)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert seen.view(0).bounding_box()["y"] < seen.view(1).bounding_box()["y"]
        colours = "getComputedStyle(document.body).backgroundColor"
        grounds.append(int(seen.page.evaluate(colours).split("(")[1].split(",")[0]))
    assert grounds[0] > 200 > 60 > grounds[1]


def test_stop_frees_the_slot(opened, server):
    seen = opened()
    seen.page.locator("#question").fill(PROMPT)
    with held(server.desk):
        seen.page.locator("#ask").click()
        eventually(lambda: server.desk.waiting == 1)
        seen.page.locator("#stop").click()
        eventually(lambda: server.desk.waiting == 0)
    expect(seen.view().locator(".said")).to_have_text("stopped")


def test_what_is_refused_is_said_and_a_key_is_asked_for(opened, desk):
    server = started(desk, key="secret")
    seen = opened(server.url)
    key = seen.page.locator("#key")
    expect(key).to_be_focused()
    key.fill("wrong")
    key.press("Tab")
    expect(seen.page.locator("#error")).to_contain_text("the key is wrong")
    key.fill("secret")
    key.press("Tab")
    expect(seen.page.locator("#left option")).to_have_count(2)
    seen.ask("x" * 200)
    expect(seen.page.locator("#error")).to_contain_text("more than prompt_length=96")
    seen.ask("One.", length=8)
    expect(seen.page.locator("#error")).to_be_hidden()
    server.end()
    seen.ask("One.")
    expect(seen.page.locator("#error")).to_have_text("the server cannot be reached")
    assert all(said.startswith("Failed to load resource") for said in seen.said)
    seen.said.clear()
