// Theme: the one that was chosen, before anything is drawn; without a choice the system's.
try {
  const chosen = localStorage.getItem("hourglass-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // a browser that keeps nothing has the system's theme
}
