// Runs before the first paint, so that a chosen theme doesn't flash. Without a choice the style sheet follows the system.
try {
  const chosen = localStorage.getItem('wiresocket.theme')
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen
} catch {
  // Storage may be forbidden; the system's theme then stands.
}
