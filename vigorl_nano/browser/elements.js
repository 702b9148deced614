// What can be used on the page as it is shown: one object an element, in reading order. One that
// lies within another, is cut by the window's edge or covered is not `whole`: no question is about it,
// nor about anything else by its name.
// Arguments: the selector of the part of the page that counts.
const WAYS = 'a[href], button, input, select, textarea, summary, label, [role], [onclick], [tabindex], ' +
  'li, td, span, div, svg, rect, circle, polygon, i, img, h3';
const ROLES = {A: 'link', BUTTON: 'button', SELECT: 'list', TEXTAREA: 'field', SUMMARY: 'button'};
const part = document.querySelector(arguments[0]) || document.body;

function words(node) {
  return (node.innerText || node.textContent || '').replace(/\s+/g, ' ').trim();
}
function name(node) {
  // The first of its own words on the screen, without counts and marks beside it.
  if (node.tagName === 'SELECT') return words(node.selectedOptions[0] || node);
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.replace(/\s+/g, ' ').trim();
    const shown = walker.currentNode.parentElement.getBoundingClientRect();
    if (/[\p{L}\p{N}].*[\p{L}\p{N}].*[\p{L}\p{N}]/u.test(text) && shown.width > 1 && shown.height > 1) return text;
  }
  return '';
}
function alt(node) {  // the name that is written nowhere on the screen
  const labelled = node.getAttribute('aria-labelledby');
  const by = labelled && document.getElementById(labelled);
  return (node.getAttribute('aria-label') || (by && words(by)) || node.getAttribute('title') ||
    node.getAttribute('alt') || '').replace(/\s+/g, ' ').trim();
}
function role(node) {
  const named = node.getAttribute('role');
  if (named) return named;
  if (node.tagName === 'INPUT') {
    const type = (node.getAttribute('type') || 'text').toLowerCase();
    if (['checkbox', 'radio', 'button', 'submit'].includes(type)) {
      return type === 'submit' ? 'button' : type;
    }
    return 'field';
  }
  return ROLES[node.tagName] || 'element';
}
function usable(node) {
  if (node.disabled) return false;
  const own = ['A', 'BUTTON', 'INPUT', 'SELECT', 'TEXTAREA', 'SUMMARY'].includes(node.tagName);
  const roles = ['button', 'link', 'tab', 'menuitem', 'checkbox', 'radio', 'option', 'switch'];
  const marked = roles.includes(node.getAttribute('role')) || node.hasAttribute('onclick');
  const pointed = getComputedStyle(node).cursor === 'pointer';
  const parent = node.parentElement;
  const first = !parent || getComputedStyle(parent).cursor !== 'pointer';
  return own || marked || (pointed && first) || node.hasAttribute('data-wob_ref');
}
function seen(box) {  // wholly in the window
  return box.width >= 6 && box.height >= 6 && box.left >= 0 && box.top >= 0 &&
    box.right <= innerWidth && box.bottom <= innerHeight;
}
function inFront(node, box) {  // the share of five places in it where nothing covers it
  let hits = 0;
  for (const [fx, fy] of [[.5, .5], [.2, .3], [.8, .3], [.2, .7], [.8, .7]]) {
    const top = document.elementFromPoint(box.left + fx * box.width, box.top + fy * box.height);
    const labelled = top && top.tagName === 'LABEL' && top === node.parentElement;
    if (top && (node === top || node.contains(top) || labelled)) hits += 1;
  }
  return hits / 5;
}
const found = [];
for (const node of part.querySelectorAll(WAYS)) {
  if (!usable(node)) continue;
  const style = getComputedStyle(node);
  if (style.visibility !== 'visible' || style.opacity < 0.3 || style.display === 'none') continue;
  const box = node.getBoundingClientRect();
  if (box.right < 1 || box.bottom < 1 || box.left > innerWidth || box.top > innerHeight) continue;
  const nested = found.some(other => other.whole && other.node.contains(node));
  const whole = !nested && seen(box) && inFront(node, box) >= 0.6;
  const written = words(node);
  const label = node.labels && node.labels.length ? words(node.labels[0]) : '';
  const drawn = node.matches('svg, img, i, svg *') || node.querySelector('svg, img, i[class]') !== null;
  const typed = ['submit', 'button'].includes(node.type) && node.tagName === 'INPUT' ? node.value : '';
  found.push({node, box, written, name: typed || name(node) || label || node.placeholder || '',
    alt: alt(node), whole,
    role: role(node), drawn, tag: node.tagName.toLowerCase()});
}
found.sort((a, b) => Math.round(a.box.top / 8) - Math.round(b.box.top / 8) || a.box.left - b.box.left);
document.querySelectorAll('[data-vigorl]').forEach(node => node.removeAttribute('data-vigorl'));
found.filter(one => one.whole).forEach((one, i) => one.node.setAttribute('data-vigorl', i + 1));
return found.map(({box, written, name, alt, role, drawn, tag, whole}) => ({
  written, name, alt, whole, role, drawn, tag,
  x1: box.left, y1: box.top, x2: box.right, y2: box.bottom,
}));
