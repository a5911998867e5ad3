"""The page in a real Chromium, on the real service: what a person does with it, and what hostile texts cannot do."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from intarsia.errors import ForbiddenError
from intarsia.ledger import Receipt, read_receipts
from intarsia.vault import Vault

from ..vault.helpers import ROUTER, grown, quick, tiny_backbone, toy_source

pytestmark = pytest.mark.integration

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # milliseconds: the machine may be busy
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
VIEWS = ("draw", "compare", "ledger", "erasure", "payouts", "people")
Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    """`oak`, `elm` and `ash` of CC-BY-SA-4.0 are trained; `yew`, of a hostile owner, and `box` too. `fir` is not."""
    root = tmp_path_factory.mktemp("shown") / "art.vault"
    vault = grown(Vault.create(root, backbone=(tiny_backbone(), toy_source("core", 24))), "oak", "elm", "box")
    vault.add_source("ash", toy_source("ash", licence="CC-BY-SA-4.0"))
    hostile = replace(toy_source("yew"), owner=HOSTILE, attribution=HOSTILE)
    vault.add_source("yew", hostile)
    vault.train(["ash", "yew"], quick(), routers=[ROUTER])
    return grown(vault, "fir", train=False)


@pytest.fixture(scope="module")
def service(vault: Vault) -> Iterator[tuple[str, str]]:
    """The address of a service of its own process, and a key that may do everything."""
    words = ["serve", str(vault.root), "--port", "0", "--steps", "12", "--precision", "float32", "--json"]
    command = [sys.executable, "-m", "intarsia.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                line = process.stdout.readline()
                assert line, f"the service ended: {text}"
                text += line
            said = json.loads(text)
            yield said["url"], said["key"]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("no Chromium on this machine: run `make integration`, which installs it, or install it by hand")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Chromium's own sandbox wants rights that containers seldom have; the page is ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def enter(chromium: Browser, service: tuple[str, str]) -> Iterator[Enter]:
    """`enter()`: the page with the key of all rights; whatever is asked of another place, or goes wrong, fails."""
    url, owner = service
    asked: list[str] = []
    wrong: list[str] = []
    contexts = []

    def enter(key: str | None = owner, view: str = "draw", script: str = "", **settings: Any) -> Page:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.add_init_script(script)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(f"{url}#key={key}" if key else url)
        if key:
            expect(page.locator("#key-open")).not_to_have_text("Key")
            assert key not in page.url, "the key has left the address"
            show(page, view)
        return page

    yield enter
    for context in contexts:
        context.close()
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert wrong == []


def show(page: Page, view: str) -> None:
    page.locator(f"#nav a[href='#/{view}']").click()
    expect(page.locator(f"#nav a[href='#/{view}']")).to_have_attribute("aria-current", "page")


def switch(page: Page, source: str) -> Any:
    return page.get_by_role("switch", name=re.compile(rf"^{source}\b"))


def draw(page: Page, *, count: int = 2, seed: int = 7, steps: int = 8) -> None:
    for name, value in (("count", count), ("seed", seed), ("steps", steps)):
        page.locator(f"#{name}").fill(str(value))
    page.locator("#seed").press("Control+Enter")
    expect(page.locator("#live")).to_have_text(re.compile(r"\d+ pictures? drawn\."))


def changed(pattern: str, change: Callable[[str], str]) -> tuple[re.Pattern[str], Callable[[Route], None]]:
    """Answers of the service that somebody on the way has changed."""

    def forge(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=change(response.text()))

    return re.compile(pattern), forge


def test_a_set_is_drawn_from_the_sources_that_are_on(enter: Enter) -> None:
    page = enter()
    expect(switch(page, "fir")).to_be_disabled()
    expect(page.locator(".source.closed .reason")).to_contain_text("no compartment yet")
    switch(page, "elm").press("Space")
    for name in ("ash", "yew", "box"):
        switch(page, name).uncheck()
    switch(page, "elm").press("Space")
    expect(page.locator("#source-tally")).to_have_text("2 of 6 in use")
    draw(page)
    expect(page.locator(".now .tile img")).to_have_count(2)
    assert page.locator(".now .tile img").first.evaluate(
        "image => [image.naturalWidth, getComputedStyle(image).imageRendering]"
    ) == [4, "pixelated"]
    course = page.locator("svg.areas").get_attribute("aria-label") or ""
    assert "oak" in course
    assert "elm" in course
    assert not set(re.findall(r"[a-z]+", course)) & {"ash", "yew", "box"}
    assert page.locator(".shares .bars li").count() == 2


def test_a_picture_is_saved_with_its_receipt_which_the_browser_checks(enter: Enter, vault: Vault) -> None:
    page = enter()
    draw(page, count=1)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save PNG").click()
    image = Image.open(io.BytesIO(saved.value.path().read_bytes()))
    assert (image.size, image.format) == ((4, 4), "PNG")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save receipt").click()
    receipt = Receipt.of(json.loads(saved.value.path().read_text()))
    assert (receipt.entry.kind, str(receipt.key)) == ("sample", str(vault.ledger.key))
    page.get_by_role("button", name="Check receipt").click()
    expect(page.locator(".closely .notice.good")).to_contain_text("It holds")
    show(page, "ledger")
    whole = saved.value.path().read_text()
    for text, verdict in (
        (whole, "It holds"),
        (whole.replace('"event":"sample"', '"event":"forget"'), "It does not hold"),
    ):
        page.locator("#receipt-file").set_input_files(
            [{"name": "r.json", "mimeType": "application/json", "buffer": text.encode()}]
        )
        expect(page.locator("#ledger .notice")).to_contain_text(verdict)


def test_credit_has_intervals(enter: Enter) -> None:
    page = enter()
    draw(page, count=1)
    page.get_by_role("button", name="Work out the credit").click()
    expect(page.locator(".credit .bars li")).to_have_count(5)
    assert page.locator(".credit line.whisker").count() == 15
    shares = [re.findall(r"\d+", text) for text in page.locator(".credit .value").all_inner_texts()]
    assert all(len(numbers) >= 2 for numbers in shares)


def test_a_picture_of_the_gallery_recalls_its_settings(enter: Enter) -> None:
    page = enter()
    switch(page, "elm").uncheck()
    draw(page, count=2, seed=11, steps=5)
    switch(page, "elm").check()
    draw(page, count=1, seed=12, steps=6)
    page.reload()
    expect(page.locator(".gallery .tile")).to_have_count(2)
    # The tab's own pictures are there before the service has said what it has, hidden until then.
    expect(page.locator(".gallery .tile").first).to_be_visible()
    page.locator(".gallery .tile").first.press("Enter")
    for name, value in (("count", "2"), ("seed", "11"), ("steps", "5")):
        expect(page.locator(f"#{name}")).to_have_value(value)
    expect(switch(page, "elm")).not_to_be_checked()
    expect(switch(page, "oak")).to_be_checked()
    expect(page.locator("#live")).to_contain_text("Its settings are in the form.")


def test_the_same_seed_is_compared_under_other_sources(enter: Enter) -> None:
    page = enter(view="compare")
    for name in ("ash", "yew", "box"):
        switch(page, name).uncheck()
    page.locator("#count").fill("2")
    page.locator("#steps").fill("4")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#live")).to_have_text("The comparison is drawn.")
    assert page.locator(".compare tbody th span:first-child").all_inner_texts()[:1] == ["All together"]
    expect(page.locator(".compare tbody tr")).to_have_count(3)
    expect(page.locator(".compare .tile img:visible")).to_have_count(6)
    page.locator(".compare .tile").last.click()
    page.get_by_role("button", name="Use its settings").click()
    expect(page.locator("#source-tally")).to_have_text("1 of 6 in use")


def test_drawing_stops_when_it_is_told_to(enter: Enter) -> None:
    page = enter()
    page.locator("#steps").fill("250")
    page.locator("#count").fill("16")
    page.locator("#draw").click()
    page.locator("#stop").click()
    expect(page.locator(".now .notice")).to_have_text("Stopped.")
    expect(page.locator("#draw")).to_be_visible()


def test_what_is_wrong_is_said_where_it_is_wrong(enter: Enter) -> None:
    page = enter()
    page.locator("#count").fill("99")
    page.locator("#draw").click()
    expect(page.locator("#n-error")).to_have_text("The number of pictures goes from 1 to 16.")
    assert page.evaluate("document.activeElement.id") == "count"
    page.locator("#count").fill("1")
    expect(page.locator("#n-error")).to_be_hidden()
    page.get_by_role("button", name="None").click()
    page.locator("#draw").click()
    expect(page.locator("#sources-error")).to_contain_text("Switch at least one on")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "The service ended before all pictures were drawn."),
        ('event: error\ndata: {"error": {"message": "the grant has ended"}}\n\n', "The grant has ended."),
        (None, "The service cannot be reached."),
    ],
)
def test_what_goes_wrong_while_drawing_is_said(enter: Enter, body: str | None, said: str) -> None:
    page = enter()

    def answer(route: Route) -> None:
        if body is None:
            route.abort()
        else:
            route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route(re.compile("/v1/images/generations"), answer)
    page.locator("#draw").click()
    expect(page.locator(".now .notice.error")).to_contain_text(said)
    expect(page.locator("#draw")).to_be_visible()


def test_a_grant_that_is_taken_back_ends_the_drawing(enter: Enter, vault: Vault) -> None:
    key = vault.add_principal("guest")
    vault.grant(["oak", "elm"], "guest")
    page = enter(key)
    page.locator("#steps").fill("250")
    page.locator("#count").fill("16")
    page.locator("#draw").click()
    expect(page.locator(".progress-word")).to_have_text(re.compile("Step [1-9]"))
    vault.revoke("elm", "guest")
    expect(page.locator(".now .notice.error")).to_be_visible()
    expect(switch(page, "elm")).to_have_count(0)
    expect(page.locator("#source-tally")).to_have_text("1 of 1 in use")
    expect(page.get_by_role("radio", name="label-oak-0")).to_have_count(1)
    expect(page.get_by_role("radio", name="label-elm-0")).to_have_count(0)
    draw(page, count=1)


def test_where_sources_read_words_a_prompt_is_asked_for(enter: Enter) -> None:
    page = enter()
    page.route(*changed("/v1/sources", lambda text: text.replace('"text":false', '"text":true')))
    page.reload()
    page.get_by_label("What to draw", exact=True).fill(" a red apple ")
    page.get_by_role("switch", name="oak").uncheck()
    with page.expect_request(re.compile("/v1/images/generations")) as asked:
        page.locator("#draw").click()
    body = asked.value.post_data_json
    assert (body["prompt"], "label" in body) == ("a red apple", False)
    assert "oak" not in body["sources"]


def test_what_is_asked_for_follows_the_sources_that_are_on(enter: Enter) -> None:
    page = enter()
    page.route(*changed("/v1/sources", lambda text: re.sub(r'("name":"oak".*?"text":)false', r"\1true", text)))
    page.reload()
    mixed, chosen = page.get_by_text("Some of these sources read words"), page.get_by_role("radio", name="label-elm-0")
    expect(mixed).to_be_visible()
    switch(page, "oak").uncheck()
    expect(mixed).to_have_count(0)
    chosen.check(force=True)
    page.get_by_role("button", name="None").click()
    expect(chosen).to_be_checked()
    switch(page, "oak").check()
    page.get_by_label("What to draw", exact=True).fill("a red apple")
    switch(page, "elm").check()
    expect(mixed).to_be_visible()
    with page.expect_request(re.compile("/v1/images/generations")) as asked:
        page.locator("#draw").click()
    assert not {"prompt", "label"} & {name for name, value in asked.value.post_data_json.items() if value}
    switch(page, "oak").uncheck()
    expect(chosen).to_be_checked()
    switch(page, "elm").uncheck()
    switch(page, "oak").check()
    expect(page.get_by_label("What to draw", exact=True)).to_have_value("a red apple")


def test_a_key_is_asked_for_and_says_what_it_may(enter: Enter, vault: Vault) -> None:
    key = vault.add_principal("studio", refuse=["share-alike"])
    vault.grant(["oak", "ash"], "studio", quota="100/day")
    page = enter(key=None)
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Give a key").click()
    expect(field).to_be_focused()
    field.fill("int_000000000000_" + "A" * 43)
    field.press("Enter")
    expect(page.locator("#key-error")).to_be_visible()
    field.fill(vault.new_key("studio", scopes=["sample"]))
    field.press("Enter")
    expect(page.locator("#key-error")).to_contain_text("This takes the scope 'read'", ignore_case=True)
    field.fill(key)
    field.press("Enter")
    expect(page.locator("#key-open")).to_have_text("studio")
    expect(page.locator(".source")).to_have_count(2)
    expect(switch(page, "ash")).to_be_disabled()
    expect(page.locator(".source.closed .reason")).to_contain_text("share-alike")
    expect(page.locator("#trouble")).to_be_empty()
    expect(page.locator("#nav a[href='#/payouts']")).to_be_hidden()
    page.locator("#key-open").click()
    expect(page.locator("#key-allows .may")).to_have_count(3)
    expect(page.locator("#key-allows .quota").first).to_contain_text("of 100 pictures")
    page.get_by_role("button", name="Remove it").click()
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("JSON.stringify({...sessionStorage, ...localStorage})").find(key) < 0


def test_the_browser_checks_the_ledger_and_remembers_it(enter: Enter) -> None:
    page = enter(view="ledger")
    check = page.get_by_role("button", name="Check it in this browser")
    check.click()
    expect(page.locator(".verdict .good")).to_contain_text("The ledger holds together.")
    expect(page.locator(".verdict .findings li")).to_have_count(2)
    show(page, "draw")
    draw(page, count=1)
    show(page, "ledger")
    page.locator("#ledger tbody button").first.click()
    expect(page.locator(".proved")).to_contain_text("In the log")
    check.click()
    expect(page.locator(".verdict .findings li")).to_have_count(3)
    expect(page.locator(".verdict .findings")).to_contain_text("nothing of them was rewritten")


@pytest.mark.parametrize(
    ("pattern", "change", "verdict"),
    [
        (r"/entries\?", lambda text: text.replace('\\"ingest\\"', '\\"extend\\"', 1), "an entry was changed"),
        (
            r"/ledger/checkpoint",
            lambda text: re.sub(r"\n(\d+)\n", lambda size: f"\n{int(size[1]) - 1}\n", text),
            "not that of this checkpoint",
        ),
        (r"/v1/ledger$", lambda text: re.sub(r'"key":"intarsia/', '"key":"intarsia/f', text), "its id is"),
    ],
    ids=["entry", "head", "key"],
)
def test_a_ledger_that_was_changed_does_not_hold(
    enter: Enter, pattern: str, change: Callable[[str], str], verdict: str
) -> None:
    page = enter(view="ledger")
    page.route(*changed(pattern, change))
    page.get_by_role("button", name="Check it in this browser").click()
    expect(page.locator(".verdict .notice.error")).to_contain_text("It does not hold.")
    expect(page.locator(".verdict .notice.error")).to_contain_text(verdict)


def test_a_ledger_that_was_written_anew_is_found_out(enter: Enter) -> None:
    page = enter(view="ledger")
    check = page.get_by_role("button", name="Check it in this browser")
    check.click()
    expect(page.locator(".verdict .good")).to_be_visible()
    show(page, "draw")
    draw(page, count=1)
    show(page, "ledger")
    page.route(*changed("/proof/consistency", lambda text: re.sub(r'"hashes":\["[^"]', '"hashes":["0', text)))
    check.click()
    expect(page.locator(".verdict .error")).to_contain_text("rewritten or cut short")


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("Object.defineProperty(crypto, 'subtle', { value: undefined })", "nothing was checked"),
        (
            "const { importKey } = SubtleCrypto.prototype;"
            "SubtleCrypto.prototype.importKey = function (form, key, kind, ...more) {"
            " if (kind.name === 'Ed25519') throw new DOMException('', 'NotSupportedError');"
            " return importKey.call(this, form, key, kind, ...more); }",
            "who signed was not checked",
        ),
    ],
    ids=["none", "no Ed25519"],
)
def test_a_browser_that_cannot_check_claims_nothing(enter: Enter, script: str, verdict: str) -> None:
    page = enter(view="ledger", script=script)
    expect(page.locator("#ledger tbody tr").first).to_be_visible()
    page.get_by_role("button", name="Check it in this browser").click()
    expect(page.locator(".verdict .notice.warn")).to_contain_text(verdict)
    expect(page.locator(".verdict .notice.good")).to_have_count(0)


@pytest.mark.parametrize(
    ("view", "late", "arrived", "pressed"),
    [
        ("erasure", "**/v1/tickets", "No request was received.", "Note a request"),
        ("ledger", "**/v1/ledger/checkpoint", "Signing key", "Check it in this browser"),
    ],
)
def test_what_is_to_be_pressed_stays_in_its_place_when_an_answer_comes(
    enter: Enter, view: str, late: str, arrived: str, pressed: str
) -> None:
    page = enter()
    pressed_on = page.get_by_text(pressed)
    before: list[object] = []

    def measured(route: Route) -> None:
        before.append(pressed_on.bounding_box())
        route.continue_()

    page.route(late, measured)
    show(page, view)
    expect(page.get_by_text(arrived)).to_be_visible()
    assert before != [None]
    assert before == [pressed_on.bounding_box()]


def test_a_source_is_forgotten_after_its_name_was_typed(enter: Enter, vault: Vault) -> None:
    page = enter(view="erasure")
    expect(page.get_by_text("No request was received.")).to_be_visible()
    page.get_by_text("Note a request").click()
    page.locator("#ticket-source").select_option("box")
    page.get_by_role("button", name="Note it").click()
    expect(page.locator("#erasure tbody tr")).to_contain_text("in 30 days")
    page.locator("#forget-source").select_option("box")
    page.get_by_role("button", name="See what it would take").click()
    page.get_by_role("button", name="Forget …").click()
    sure = page.locator("#confirm").get_by_role("button", name="Forget", exact=True)
    expect(sure).to_be_disabled()
    page.locator("#confirm-name").fill("oak")
    expect(sure).to_be_disabled()
    page.locator("#confirm-name").press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).to_be_hidden()
    assert "box" in Vault.open(vault.root).names(), "nothing was confirmed"
    page.get_by_role("button", name="Forget …").click()
    page.locator("#confirm-name").fill("box")
    page.locator("#confirm-name").press("Enter")
    expect(page.locator(".answer .good")).to_contain_text("“box” was forgotten")
    assert "box" not in Vault.open(vault.root).names()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the receipt").click()
    assert Receipt.of(json.loads(saved.value.path().read_text())).check().size > 0
    expect(page.locator("#erasure tbody tr")).to_contain_text("Done")
    show(page, "draw")
    expect(switch(page, "box")).to_have_count(0)


def test_a_single_picture_is_forgotten_by_training_again(enter: Enter, vault: Vault, tmp_path: Path) -> None:
    samples = [sample.id for sample in Vault.open(vault.root).source("ash").manifest]
    page = enter(view="erasure")
    page.locator("#forget-source").select_option("ash")
    page.get_by_label("Single pictures").check()
    look = page.get_by_role("button", name="See what it would take")
    look.click()
    expect(page.locator(".answer .error")).to_contain_text("No id is given")
    page.locator("#forget-ids").fill("ffffffff")
    look.click()
    expect(page.locator(".answer .error")).to_contain_text("ffffffff")
    page.locator("#forget-ids").fill(samples[0][:12])
    look.click()
    expect(page.locator(".answer .plan")).to_contain_text(f"1 picture will be gone for good, {len(samples) - 1} stay.")
    expect(page.locator(".answer .plan")).to_contain_text("Trained again:")
    page.get_by_role("button", name="Forget …").click()
    page.locator("#confirm-name").fill("ash")
    page.locator("#confirm-name").press("Enter")
    # The job is of low priority on a machine that may be busy.
    expect(page.locator(".answer .good")).to_contain_text("was forgotten", timeout=5 * PATIENCE)
    left = [sample.id for sample in Vault.open(vault.root).source("ash").manifest]
    assert sorted(left) == sorted(samples[1:])
    assert Vault.open(vault.root).verify().ok
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the receipt").click()
    saved.value.save_as(tmp_path / "receipts.json")
    assert [receipt.entry.kind for receipt in read_receipts(tmp_path / "receipts.json")] == ["forget", "train"]


def test_an_amount_is_split(enter: Enter) -> None:
    page = enter()
    draw(page, count=1)
    show(page, "payouts")
    page.get_by_label("Amount").fill("10.01")
    page.get_by_role("button", name="Split it").click()
    expect(page.locator("#payouts h2")).to_contain_text("10.01 EUR")
    cells = page.locator("#payouts tbody td:last-child").all_inner_texts()
    assert sum(round(float(cell) * 100) for cell in cells) == 1001


def test_somebody_is_added_and_the_key_is_shown_once(enter: Enter, vault: Vault) -> None:
    page = enter(view="people")
    page.get_by_text("Add somebody").press("Enter")
    page.get_by_role("button", name="Add, and make a key").click()
    expect(page.locator("#people .notice.error")).to_contain_text("Give a name")
    page.get_by_label("Name", exact=True).fill("atelier")
    page.get_by_label("Share alike").check()
    page.get_by_label("Name", exact=True).press("Enter")
    shown = page.get_by_label("The new key of atelier")
    expect(shown).to_be_focused()
    key = shown.input_value()
    assert vault.identify(key).scopes == ("read", "sample", "credit")
    page.get_by_role("button", name="I have it").click()
    assert key not in page.content()
    card = person(page, "atelier")
    expect(card.locator("summary").first).to_contain_text("1 key · 0 grants · refuses share-alike licences")
    card.get_by_text("Make another key").press("Enter")
    card.get_by_role("button", name="Make it").click()
    another = shown.input_value()
    show(page, "ledger")
    show(page, "people")
    assert another not in page.content(), "whoever comes back does not see it again"
    card.get_by_role("button", name=f"Withdraw key {key.split('_')[1]}").click()
    page.get_by_role("button", name="Withdraw it").click()
    expect(card.get_by_role("region", name="Keys").locator("tbody tr")).to_have_count(1)
    with pytest.raises(ForbiddenError):
        vault.identify(key)
    assert vault.identify(another).principal == "atelier"
    card.get_by_role("button", name="Remove atelier").click()
    page.locator("#confirm-name").fill("atelier")
    page.locator("#confirm-name").press("Enter")
    expect(card).to_have_count(0)
    assert "atelier" not in [each.name for each in vault.principals()]


def test_grants_are_given_and_taken(enter: Enter, vault: Vault) -> None:
    vault.add_principal("gallery", refuse=["share-alike"])
    page = enter(view="people")
    card = person(page, "gallery")
    card.locator("summary").first.press("Enter")
    expect(card.get_by_text("Nothing: it may draw nothing.")).to_be_visible()
    card.get_by_text("Grant sources").press("Enter")
    card.get_by_role("button", name="Grant", exact=True).click()
    expect(card.locator(".notice.error")).to_contain_text("No source is chosen")
    card.get_by_role("checkbox", name=re.compile("^oak")).check()
    card.get_by_role("checkbox", name=re.compile("^ash")).check()
    card.get_by_label("At most so many pictures").fill("5")
    card.get_by_role("button", name="Grant", exact=True).click()
    rows = card.get_by_role("region", name="Granted").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("share-alike")
    expect(rows.nth(1)).to_contain_text("0 of 5 per day")
    assert vault.decide("gallery").names == ("oak",)
    take = card.get_by_role("button", name="Take oak away from gallery")
    take.press("Enter")
    expect(page.locator("#confirm").get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_hidden()
    assert vault.decide("gallery").names == ("oak",), "what has the focus changes nothing"
    take.click()
    page.get_by_role("button", name="Take it away", exact=True).click()
    expect(rows).to_have_count(1)
    assert vault.decide("gallery").names == ()


def test_rules_keys_and_grants_are_changed(enter: Enter, vault: Vault) -> None:
    key = vault.add_principal("print", until=datetime(2999, 2, 1, tzinfo=UTC))
    vault.grant(["oak", "ash"], "print", quota="5/day")
    page, dialog = (found := enter(view="people")), found.locator("#confirm")
    card = person(page, "print")
    card.locator("summary").first.press("Enter")
    card.get_by_role("button", name="Change the rules of print").press("Enter")
    dialog.get_by_label("Share alike").check()
    dialog.get_by_label("Only under these licences").fill("free")
    dialog.get_by_role("button", name="Change it").click()
    expect(dialog.locator(".notice.error")).to_contain_text("SPDX")
    dialog.get_by_label("Only under these licences").fill("")
    dialog.get_by_label("Only under these licences").press("Enter")
    expect(card.locator("summary").first).to_contain_text("refuses share-alike licences")
    assert vault.decide("print").names == ("oak",)
    card.get_by_role("button", name="Change the grant of oak to print").click()
    assert dialog.get_by_label("At most so many pictures").input_value() == "5"
    dialog.get_by_label("At most so many pictures").fill("7")
    dialog.get_by_label("Until").fill("2999-12-31")
    dialog.get_by_role("button", name="Change it").click()
    row = card.get_by_role("region", name="Granted").locator("tbody tr", has_text="oak")
    expect(row).to_contain_text("0 of 7 per day")
    expect(row).to_contain_text("31 Dec 2999")
    card.get_by_role("button", name=f"Change key {key.split('_')[1]}").click()
    assert dialog.get_by_label("It ends on").input_value() == "2999-01-31", "a day counts to its end"
    dialog.get_by_label("Ask who is owed credit for a picture").uncheck()
    dialog.get_by_role("button", name="Change it").click()
    expect(card.get_by_role("region", name="Keys")).not_to_contain_text("credit")
    expect(card.get_by_role("region", name="Keys")).to_contain_text("31 Jan 2999")
    found = vault.identify(key)
    assert (found.scopes, found.until) == (("read", "sample"), datetime(2999, 2, 1, tzinfo=UTC))
    vault.remove_principal("print")


def person(page: Page, name: str) -> Any:
    return page.locator(".person", has=page.get_by_role("heading", name=name))


def test_texts_of_others_stay_texts(enter: Enter) -> None:
    page = enter()
    expect(page.locator(".source-list")).to_contain_text(HOSTILE)
    draw(page, count=1)
    for view in VIEWS:
        show(page, view)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x]").count() == 0
    blocked = page.evaluate("() => { try { document.body.innerHTML = 'x' } catch (error) { return error.name } }")
    assert blocked == "TypeError", "the browser itself refuses markup made of text"


NAMED = {
    "button",
    "checkbox",
    "combobox",
    "heading",
    "img",
    "image",
    "link",
    "progressbar",
    "radio",
    "slider",
    "spinbutton",
    "switch",
    "textbox",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_everything_has_a_name_and_fits_the_screen(enter: Enter, scheme: str, width: int) -> None:
    page = enter(color_scheme=scheme, viewport={"width": width, "height": 740}, reduced_motion="reduce")
    draw(page, count=2, steps=4)
    tree = page.context.new_cdp_session(page)
    for view in VIEWS:
        show(page, view)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        box = page.locator("#nav a[aria-current]").bounding_box()
        assert box is not None
        assert box["x"] > -1, view
        assert box["x"] + box["width"] < width + 1, view
        nodes = tree.send("Accessibility.getFullAXTree")["nodes"]
        found = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
        assert [role for role, name in found if role in NAMED and not name] == [], view
        assert [role for role, _ in found].count("main") == 1
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
        assert len(ids) == len(set(ids)), view


def test_every_control_is_reached_by_the_keyboard_and_shows_it(enter: Enter) -> None:
    page = enter()
    page.reload()
    expect(page.locator("#draw")).to_be_visible()
    reached: list[str] = []
    while True:
        page.keyboard.press("Tab")
        name, line, width = page.evaluate(
            "() => { const it = document.activeElement; const { outlineStyle, outlineWidth } = getComputedStyle(it);"
            " const name = it === document.body ? '' : it.id || it.textContent.trim() || it.tagName;"
            " return [name, outlineStyle, parseFloat(outlineWidth)]; }"
        )
        if not name:
            break
        assert (line, width) == ("solid", 3), name
        reached.append(name)
    assert reached[0] == "skip"
    assert {"theme", "key-open", "seed", "reseed", "count", "steps", "draw"} <= set(reached), reached
