// Loads the page again when a part of it did not come: Chromium breaks off what it is
// loading when the machine's network changes, and on a node it does so with every
// container. A classic script, so that it is there before the others.
'use strict';
window.addEventListener('error', ({ target }) => {
  const needed = target instanceof HTMLScriptElement || (target instanceof HTMLLinkElement && target.rel === 'stylesheet');
  if (!needed) return;
  let tries = 0;
  try {
    tries = Number(sessionStorage.getItem('stellar-boots') ?? 0);
    sessionStorage.setItem('stellar-boots', tries + 1);
  } catch {
    tries = Infinity; // nobody counts: not again and again
  }
  if (tries < 5) setTimeout(() => location.reload(), 500);
  else document.getElementById('link-text').textContent = 'Not loaded: reload';
}, true);
