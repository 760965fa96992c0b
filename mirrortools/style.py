"""How pages look: in light and dark, on a wide screen and on a phone. Fonts are those of the reader's system.

In Python because edges get our modules alone.
"""

from typing import Final

STYLE: Final = """\
:root {
  color-scheme: light dark;
  --text: #1c2024; --soft: #5f6b76; --page: #fff; --panel: #f4f6f8; --line: #dde3e9; --link: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e7eb; --soft: #98a4b0; --page: #14181c; --panel: #1d2329; --line: #323b44; --link: #7ab8f5; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; color: var(--text); background: var(--page); font: 16px/1.55 system-ui, sans-serif; }
nav, main { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
nav { padding-top: 1rem; color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
main { padding-bottom: 4rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
h1 { margin: 1rem 0 .25rem; font-size: 1.9rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .75rem; font-size: 1.25rem; }
.owner { color: var(--soft); font-weight: 400; }
a .owner { color: inherit; }
.about, .files > p { margin: 0 0 1rem; color: var(--soft); }
.commit { overflow-wrap: anywhere; }
code, pre {
  font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em;
}
pre {
  margin: 0; padding: .6rem .8rem; overflow-x: auto; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px;
}
.get { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .5rem .75rem; align-items: center; }
.get h2 { grid-column: 1 / -1; margin: 1rem 0 .25rem; }
.get h3 { margin: 0; font-size: .9rem; font-weight: 600; color: var(--soft); }
.get > pre:only-child { grid-column: 1 / -1; margin: 1rem 0 1.5rem; }
.get pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.get pre code { user-select: all; }
.get > pre:only-child code { user-select: auto; }
table { width: 100%; border-collapse: collapse; font-size: .94rem; }
th { padding: .4rem .75rem; text-align: left; font-weight: 600; color: var(--soft); }
td { padding: .4rem .75rem; border-top: 1px solid var(--line); vertical-align: top; }
.files th:not(:first-child), .size { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.files th:last-child:nth-child(3) { text-align: left; }
.files th:first-child, .name { padding-left: 0; overflow-wrap: anywhere; }
.name a > span:not(.owner) { color: var(--soft); }
.also {
  margin-left: .4rem; padding: 0 .4rem; border: 1px solid var(--line); border-radius: 999px; color: var(--soft);
  font-size: .8em; white-space: nowrap;
}
.hash { padding-right: 0; }
.hash code {
  display: block; max-width: 18ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  color: var(--soft); user-select: all;
}
.files > p:last-child { margin-top: 1rem; }
.files td:last-child, .files th:last-child { padding-right: 0; }
.card { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 2px solid var(--line); overflow-wrap: break-word; }
.card h1 { font-size: 1.6rem; }
.card img { max-width: 100%; height: auto; }
.card img:not([src]) { display: none; }
.card table { display: block; width: auto; max-width: 100%; overflow-x: auto; }
.card td, .card th { border: 1px solid var(--line); color: inherit; }
.card th { background: var(--panel); }
.card :not(pre) > code { padding: .1em .35em; background: var(--panel); border-radius: 4px; overflow-wrap: anywhere; }
.card blockquote { margin: 1rem 0; padding: 0 1rem; border-left: 4px solid var(--line); color: var(--soft); }
.card hr { border: 0; border-top: 1px solid var(--line); }
.facts {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1rem; margin: 0 0 1.5rem;
  font-size: .9rem;
}
.facts dt { color: var(--soft); }
.facts dd { display: flex; flex-wrap: wrap; gap: .3rem; margin: 0; }
.facts span {
  padding: 0 .55rem; background: var(--panel); border: 1px solid var(--line); border-radius: 999px;
  overflow-wrap: anywhere;
}
@media (max-width: 40rem) {
  h1 { font-size: 1.5rem; }
  .get { grid-template-columns: minmax(0, 1fr); gap: .25rem; }
  .get h3 { margin-top: .5rem; }
  .files thead { display: none; }
  .files table, .files tbody { display: block; }
  .files tr { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .5rem 0; border-top: 1px solid var(--line); }
  .files td { padding: 0; border: 0; }
  .files .name { flex: 1 0 100%; }
  .files .size { text-align: left; color: var(--soft); }
  .hash code { max-width: 22ch; }
}
"""
