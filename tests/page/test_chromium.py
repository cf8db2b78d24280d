"""The page in a real Chromium: drop, zoom, compare, look, save, cancel, dark, phone, keyboard, touch."""

import base64
import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")

DROP = """
const [name, text] = arguments, bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name));
for (const kind of ["dragover", "drop"])
  document.getElementById("stage").dispatchEvent(
    new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
"""
PIXELS = "return document.getElementById('canvas').toDataURL('image/png').split(',')[1]"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=720,540"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    folder = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = folder
    yield driver
    driver.quit()


class Browser:
    """The page as a person uses it."""

    def __init__(self, driver, served):
        self.driver, self.served = driver, served

    def __call__(self, script, *given):
        return self.driver.execute_script(script, *given)

    def find(self, id):
        return self.driver.find_element(By.ID, id)

    def until(self, what, seconds=60):
        end = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < end, self.find("state").text
            time.sleep(0.05)
        return found

    def drop(self, data, name):
        before = len(self.driver.find_elements(By.CSS_SELECTOR, "#pictures li"))
        self(DROP, name, base64.b64encode(data).decode())
        self.until(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, "#pictures li")) > before)

    def sharp(self):
        """Wait until the view is decoded for its scale."""
        self.until(lambda: self("return document.getElementById('stage').dataset.sharp") == "true")

    def settled(self, act):
        """Do something that moves the view, and wait until it is sharp again."""
        self("document.getElementById('stage').dataset.sharp = ''")
        act()
        self.sharp()

    def pixels(self):
        self("return new Promise(requestAnimationFrame)")
        data = base64.b64decode(self(PIXELS))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def view(self):
        return self("const { scale, x, y } = clitZoo.stage; return [scale, x, y]")


@pytest.fixture
def browser(driver, start, request):
    served = start()
    driver.set_window_size(720, 540)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.get(f"http://127.0.0.1:{served.client.port}/")
    browser = Browser(driver, served)
    browser.until(lambda: len(Select(browser.find("model")).options) > 1)
    yield browser
    driver.get("about:blank")
    loud = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    expected = getattr(request.node, "expected_errors", ())
    assert not [line for line in loud if not any(word in line["message"] for word in expected)]


@pytest.fixture
def photo():
    """A smooth picture with an edge, as a PNG."""
    y, x = np.mgrid[0:60, 0:80]
    pixels = np.stack([x * 3, y * 4, 255 - x * 3], 2).astype(np.uint8)
    pixels[20:40, 30:50] = 240
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_dropped_zoomed_and_decoded_for_the_scale_on_screen(browser, photo, tiny):
    assert browser.find("start").is_displayed()
    browser.drop(photo, "edge.png")
    browser.sharp()
    assert not browser.find("start").is_displayed()
    stage = browser.find("stage")
    browser.settled(lambda: stage.send_keys("++"))
    browser.settled(lambda: ActionChains(browser.driver).drag_and_drop_by_offset(stage, 40, -25).perform())
    scale, x, y = browser.view()
    found = browser.pixels()
    height, width = found.shape[:2]
    whole = np.asarray(tiny.upscale(Image.open(io.BytesIO(photo)), scale))
    # what is on screen is the crop of the whole enlargement at that scale, pixel for pixel
    left, top = round(-(x - width / scale / 2) * scale), round(-(y - height / scale / 2) * scale)
    inside = found[max(0, top) : top + whole.shape[0], max(0, left) : left + whole.shape[1]]
    crop = whole[max(0, -top) : max(0, -top) + height, max(0, -left) : max(0, -left) + width]
    assert inside.shape == crop.shape and inside.size > 100_000
    assert np.array_equal(inside, crop)
    # one wheel click zooms around the pointer
    browser.settled(
        lambda: browser(
            "arguments[0].dispatchEvent(new WheelEvent('wheel', "
            "{ deltaY: -240, clientX: 400, clientY: 300, bubbles: true, cancelable: true }))",
            stage,
        )
    )
    assert browser.view()[0] == pytest.approx(2 * scale, rel=1e-3)
    stage.send_keys("0")
    browser.sharp()
    assert browser.view()[1:] == [40, 30]


def test_compared_with_bicubic_by_a_slider(browser, photo):
    browser.drop(photo, "edge.png")
    browser.sharp()
    alone = browser.pixels()
    browser.settled(lambda: Select(browser.find("other")).select_by_value("bicubic"))
    assert browser.find("left").text == "tiny-clit" and browser.find("right").text == "bicubic"
    half = browser.pixels()
    middle = half.shape[1] // 2
    assert np.array_equal(half[:, : middle - 3], alone[:, : middle - 3])
    assert not np.array_equal(half[:, middle + 3 :], alone[:, middle + 3 :])
    browser(
        "const s = document.getElementById('slider'); s.value = 1000; s.dispatchEvent(new Event('input'))"
    )
    browser.until(lambda: np.array_equal(browser.pixels()[:, :-3], alone[:, :-3]))
    slider = browser.find("slider")
    slider.send_keys(Keys.HOME)
    browser.until(lambda: not np.array_equal(browser.pixels()[:, : middle - 3], alone[:, : middle - 3]))


def test_a_box_is_saved_and_comes_down(browser, photo, tiny):
    browser.drop(photo, "edge.png")
    browser.sharp()
    browser.find("box").click()
    stage = browser.find("stage")
    actions = ActionChains(browser.driver).move_to_element_with_offset(stage, -60, -40)
    actions.click_and_hold().move_by_offset(120, 80).release().perform()
    box = browser("return clitZoo.stage.box")
    assert 0 < box[0] < box[2] < 80 and 0 < box[1] < box[3] < 60
    browser.find("save").click()
    assert browser("return document.querySelector('[name=part]:checked').value") == "box"
    scale = browser.find("by-scale")
    scale.clear()
    scale.send_keys("2.5")
    assert "pixels" in browser.find("size").text
    browser.find("do-save").click()
    path = browser.driver.downloads / "edge_x2.5_tiny-clit.png"
    browser.until(path.exists)
    wanted = tiny.upscale(Image.open(io.BytesIO(photo)), 2.5, box=box)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(wanted))
    path.unlink()
    browser.find("stage").send_keys(Keys.ESCAPE)
    assert browser("return clitZoo.stage.box") is None


def test_a_save_is_found_again_and_cancelled(browser, photo, monkeypatch, request):
    monkeypatch.setattr("clit_zoo.tiles.CHUNK_PIXELS", 1 << 16)
    request.node.expected_errors = ("/api/saves/",)  # a question that was on its way
    browser.drop(photo, "edge.png")
    browser.sharp()
    browser.find("stage").send_keys("s")
    scale = browser.find("by-scale")
    scale.clear()
    scale.send_keys("60")
    browser.find("do-save").click()
    browser.until(lambda: "%" in browser.find("saves").text)
    browser.driver.refresh()
    browser.until(lambda: "edge_x60_tiny-clit.png" in browser.find("saves").text)
    assert "%" in browser.find("saves").text
    browser.find("saves").find_element(By.TAG_NAME, "button").click()
    browser.until(lambda: not browser.driver.find_elements(By.CSS_SELECTOR, "#saves li"))
    browser.until(lambda: not browser.served.page.saves._saves)
    browser.settled(lambda: browser.find("in").click())
    assert not list(browser.driver.downloads.iterdir())


def test_where_the_model_looks(browser, photo):
    browser.drop(photo, "edge.png")
    browser.sharp()
    browser.find("look").click()
    ActionChains(browser.driver).move_to_element_with_offset(browser.find("stage"), 10, 5).click().perform()
    heads = browser.until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, "#heads .maps button"))
    assert [head.text for head in heads] == ["mean", "head 1", "head 2"]
    glance = browser("return clitZoo.stage.glance")
    assert len(glance["weights"]) == 3 and glance["box"][0] < glance["x"] < glance["box"][2]
    heads[1].click()
    assert browser("return clitZoo.stage.glance.weights") != glance["weights"]


def test_several_pictures_and_one_that_cannot_be_opened(browser, request, photo, png):
    request.node.expected_errors = ("422",)
    browser(DROP, "<img src=x onerror=alert(1)>.png", base64.b64encode(b"no picture").decode())
    browser.until(lambda: "not a picture" in browser.find("state").text)
    assert "<img" in browser.find("state").text and browser.find("start").is_displayed()
    for data, name in ((photo, "<b>bold.png"), (png(30, 40), "b.png")):
        browser.drop(data, name)
        browser.sharp()
    current = browser.driver.find_elements(By.CSS_SELECTOR, "[aria-current=true]")
    assert [one.text.split()[0] for one in current] == ["b.png"]
    browser.settled(lambda: browser.driver.find_elements(By.CSS_SELECTOR, ".pick")[0].click())
    assert browser("return clitZoo.stage.picture.name") == "<b>bold.png"
    browser.driver.find_elements(By.CSS_SELECTOR, "#pictures .close")[0].click()
    browser.until(lambda: len(browser.driver.find_elements(By.CSS_SELECTOR, "#pictures li")) == 1)


def test_dark_and_light(browser):
    shades = {}
    for scheme in ("light", "dark"):
        browser.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        colors = browser("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        shades[scheme] = [sum(map(int, color.split("(")[1].strip(")").split(",")[:3])) for color in colors]
    assert shades["light"][0] > 600 > 200 > shades["light"][1]
    assert shades["dark"][0] < 200 < 600 < shades["dark"][1]


def test_on_a_phone(browser, photo):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.drop(photo, "edge.png")
    browser.sharp()
    assert browser("return document.documentElement.scrollWidth") <= 360
    stage = browser.find("stage").rect
    assert stage["width"] == 360 and stage["height"] > 300
    assert browser("return document.getElementById('canvas').width") == 720  # the screen's own pixels
    for id in ("save", "model", "fit", "other", "look"):
        place = browser.find(id).rect
        assert place["x"] >= 0 and place["x"] + place["width"] <= 360 and place["height"] >= 30
    before = browser.view()[0]
    middle = stage["x"] + 180, stage["y"] + stage["height"] / 2

    def touch(kind, apart):
        points = [{"x": middle[0] + side * apart, "y": middle[1], "id": i} for i, side in enumerate((-1, 1))]
        browser.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if kind != "touchEnd" else []}
        )

    def pinch():
        touch("touchStart", 40)
        for apart in (60, 80, 100, 120):
            touch("touchMove", apart)
        touch("touchEnd", 0)

    browser.settled(pinch)
    assert browser.view()[0] == pytest.approx(3 * before, rel=0.15)


def test_everything_by_keyboard(browser, photo):
    browser.drop(photo, "edge.png")
    browser.sharp()
    names = set()
    browser("document.activeElement.blur()")
    for _ in range(25):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        names.add(browser("return document.activeElement.id || document.activeElement.className"))
    assert {"in", "out", "fit", "model", "other", "box", "look", "save", "stage", "pick", "close"} <= names
    browser.find("stage").send_keys("1")
    assert browser.view()[0] == 1
    x = browser.view()[1]
    browser.find("stage").send_keys(Keys.ARROW_RIGHT)
    assert browser.view()[1] > x
    browser.find("stage").send_keys("s")
    browser.find("by-width").send_keys(Keys.CONTROL, "a", Keys.NULL, "77", Keys.ENTER)
    assert not browser("return document.getElementById('dialog').open")
    assert "77" in browser.find("saves").text
