"use strict";
// Pick a character: those before it are shaded by how much the next prediction leans on them.
for (const figure of document.querySelectorAll(".saliency")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const spans = [...figure.querySelectorAll("[data-k]")];
  const percent = (p) => `${(100 * p).toFixed(1)} %`;
  const pick = (t) => {
    spans.forEach((span, k) => {
      span.style.setProperty("--a", k <= t ? data.shares[t][k] / 100 : 0);
      span.classList.toggle("here", k === t);
      span.tabIndex = k === t ? 0 : -1;  // one stop for the tabulator, whatever the text's length
      span.classList.toggle("later", k > t);
    });
    const others = data.expected[t].map(([c, p]) => `${c} ${percent(p)}`).join(", ");
    figure.querySelector(".said").textContent =
      `After ${t + 1} characters: ${data.chosen[t]} has ${percent(data.probability[t])}. `
      + `Most probable: ${others}.`;
  };
  spans.forEach((span, t) => {
    span.addEventListener("click", () => pick(t));
    span.addEventListener("focus", () => pick(t));
    span.addEventListener("keydown", (event) => {
      const next = { ArrowRight: t + 1, ArrowLeft: t - 1, Home: 0, End: spans.length - 1 };
      if (spans[next[event.key]]) {
        event.preventDefault();
        event.stopPropagation();
        spans[next[event.key]].focus();
      }
    });
  });
  pick(data.start);
}
