import { el, fill, onLanguage, root, start, t } from "./shell.js";
import words from "./words/chat.js";

const main = document.querySelector("main");

function draw() {
  fill(main, el("h1", {}, t("chat.title")), el("p", {}, t("chat.about", { address: new URL("v1", root).href })));
}

start("chat", words);
onLanguage(draw);
draw();
