// Light and dark: as the system says, until the button says otherwise.

const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

const dark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";

function showTheme() {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  $("#theme").setAttribute("aria-pressed", String(dark()));
}

$("#theme").addEventListener("click", () => {
  chosen = dark() ? "light" : "dark";
  showTheme();
  changed("theme");
});
system.addEventListener("change", () => {
  showTheme();
  changed("theme");
});
showTheme();

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
