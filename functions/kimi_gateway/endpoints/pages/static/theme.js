// Runs before the page is drawn, so that it does not flash in the other theme.
try {
  const theme = localStorage.getItem("kimi-gateway.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden: the system's theme applies.
}
