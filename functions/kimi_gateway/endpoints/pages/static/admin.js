import { el, fill, onLanguage, root, start, t } from "./shell.js";
import words from "./words/admin.js";

const main = document.querySelector("main");

function draw() {
  fill(main, el("h1", {}, t("admin.title")));
}

start("admin", words);
onLanguage(draw);
draw();
