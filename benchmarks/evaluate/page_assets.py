"""CSS and JavaScript of the listening page, beside the style that all pages share."""

STYLE = """
body { max-width: 84rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
.lines { max-width: 72rem; }
td small { color: var(--soft); font-size: .8rem; display: block; line-height: 1.35; }
.published td { color: var(--soft); font-style: italic; }
.best { color: var(--accent); font-weight: 600; }
.bar { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; padding: .6rem 0;
  background: var(--page); border-bottom: 1px solid var(--line); }
.bar label { cursor: pointer; }
.bar { align-items: center; }
.clip { margin: 1.2rem 0; }
summary { cursor: pointer; }
summary h2, summary h3 { display: inline; margin: 0 1rem 0 0; }
.clip summary { margin-bottom: .5rem; }
.clip summary .soft { white-space: nowrap; }
.soft summary { font-size: .9rem; }
#quality .wide + .wide { margin-top: 1.4rem; }
#quality td.label, #quality th.label { position: sticky; left: 0; background: var(--page); max-width: 14rem;
  min-width: 7rem; white-space: normal; overflow-wrap: anywhere; }
.text { margin: 0 0 .6rem; max-width: 60rem; font-style: italic; }
.grid { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .7rem;
  min-width: 0; }
.card.playing { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.card h4 { margin: 0 0 .4rem; font-size: .9rem; overflow-wrap: anywhere; display: flex; justify-content: space-between;
  gap: .4rem; }
.card h4 span { color: var(--soft); font-weight: 400; font-size: .8rem; white-space: nowrap; }
.view { position: relative; cursor: pointer; border-radius: .25rem; overflow: hidden; background: #000; }
.view img { display: block; width: 100%; height: 7.5rem; }
.view i { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; box-shadow: 0 0 3px #000; }
.view span { position: absolute; left: .3rem; color: #fff; font-size: .68rem; line-height: 1; opacity: .85;
  text-shadow: 0 0 3px #000; }
.view .top { top: .3rem; }
.view .low { bottom: .3rem; }
.time { position: relative; height: 1rem; margin-top: .1rem; font-size: .68rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.time span { position: absolute; white-space: nowrap; transform: translateX(-50%); line-height: 1.2; }
.time span:first-child { transform: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.3rem; padding: 0; margin: .6rem 0; }
.plots { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.plots figure { margin: 0; }
.plots svg { display: block; width: 100%; height: auto; max-width: 30rem; }
.plots svg text { font-family: system-ui, sans-serif !important; }
audio { display: block; width: 100%; height: 2.4rem; margin: .3rem 0 .35rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .05rem 1rem; margin: 0;
  font-size: .84rem; font-variant-numeric: tabular-nums; }
dl div { display: flex; justify-content: space-between; gap: .4rem; border-bottom: 1px solid var(--line); }
dt { color: var(--soft); }
dd { margin: 0; }
figure.stability { margin: 1rem 0; max-width: 46rem; overflow-x: auto; }
.stability svg { width: 100%; min-width: 38rem; height: auto; font-family: system-ui, sans-serif; }
.heard { font-size: .84rem; margin-top: .4rem; color: var(--soft); }
@media print { .bar, audio, #blind { display: none; } }
"""

SCRIPT = """
(() => {
  const players = [...document.querySelectorAll('audio')];
  const keep = document.getElementById('keep');
  const card = player => player.closest('.card');
  const bar = player => card(player).querySelector('i');
  let latest = null;
  const draw = player => {
    const share = player.duration ? player.currentTime / player.duration * player.dataset.share : 0;
    bar(player).style.left = 'calc(' + 100 * share + '% - ' + 2 * share + 'px)';
  };
  const follow = player => {
    draw(player);
    if (!player.paused) requestAnimationFrame(() => follow(player));
  };
  for (const player of players) {
    player.addEventListener('play', () => {
      if (player.paused) return;  // another one was started meanwhile
      for (const other of players) if (other !== player) other.pause();
      if (keep.checked && latest && latest !== player && latest.dataset.clip === player.dataset.clip && !latest.ended) {
        const time = latest.currentTime;
        player.currentTime = player.duration && time > player.duration - 0.05 ? 0 : time;  // a shorter one starts again
      }
      latest = player;
      card(player).classList.add('playing');
      follow(player);
    });
    player.addEventListener('pause', () => card(player).classList.remove('playing'));
    player.addEventListener('seeked', () => draw(player));
    card(player).closest('details').addEventListener('toggle', event => {
      if (event.target.open && player.preload === 'none') player.preload = 'metadata';
    });
    card(player).querySelector('.view').addEventListener('click', event => {
      const box = event.currentTarget.getBoundingClientRect();
      const share = Math.min(1, (event.clientX - box.left) / box.width / player.dataset.share);
      if (latest !== player) latest = null;
      player.currentTime = share * (player.duration || 0);
      player.play();
    });
  }
})();
"""
