// Light, dark or as the system has it. A classic script, so that it runs before the
// first paint: no flash of the other theme.
'use strict';
(() => {
  const names = { system: 'as the system', light: 'light', dark: 'dark' };
  const order = Object.keys(names);
  let theme = 'system';
  try {
    theme = localStorage.getItem('stellar-theme') ?? 'system';
  } catch { /* storage may be forbidden: then it is not remembered */ }
  const apply = () => {
    if (!names[theme]) theme = 'system';
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  apply();
  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const show = () => {
      const next = order[(order.indexOf(theme) + 1) % order.length];
      button.textContent = { system: '◐', light: '☀', dark: '☾' }[theme];
      button.title = `Theme: ${names[theme]}`;
      button.setAttribute('aria-label', `Theme: ${names[theme]}. Change to ${names[next]}`);
    };
    show();
    button.addEventListener('click', () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem('stellar-theme', theme);
      } catch { /* as above */ }
      apply();
      show();
    });
  });
})();
