import { el, fill, onLanguage, root, start, t } from "./shell.js";
import words from "./words/credits.js";

const main = document.querySelector("main");

function draw() {
  fill(main, el("h1", {}, t("credits.title")));
}

start("credits", words);
onLanguage(draw);
draw();
