// The graphs of an app's usage, and the figures of the moment: asked for every few seconds while somebody can see them.
const EVERY_MS = 5000

const graphs = document.getElementById('graphs')
const figures = document.getElementById('figures')
const trouble = document.getElementById('trouble')
const address = new URL(graphs.dataset.points, location.href)
const dark = matchMedia('(prefers-color-scheme: dark)')
const count = new Intl.NumberFormat(undefined)
const short = new Intl.NumberFormat(undefined, { notation: 'compact' })

/** What was reported, by the second in which its minute or hour began: connections, documents, changes. */
const points = new Map()
const charts = []
let newest = {}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
const clock = (at, options) => new Date(at * 1000).toLocaleString(undefined, options)
const isLong = () => newest.spanS > 86_400
const tick = (at) => clock(at, isLong() ? { day: 'numeric', month: 'short' } : { hour: '2-digit', minute: '2-digit' })
// A year has more hours than a screen has points: there, the highest of each day is shown.
const stepS = () => newest.spanS > 90 * 86_400 ? 86_400 : newest.stepS
const moment = (at) => stepS() === 86_400 ? `on ${tick(at)}` : `at ${clock(at, { ...(isLong() && { day: 'numeric', month: 'short' }), hour: '2-digit', minute: '2-digit' })}`

const rounded = (number) => number < 10 ? Math.round(number * 10) / 10 : Math.round(number)

// In each: which of a point's figures, its limit in the answer, and what one of it is. Changes are shown for a minute,
// as their limit is, whatever a point holds.
const KINDS = [
  { heading: 'Connections', limit: 'connections', of: (point) => point[0] },
  { heading: 'Open documents', limit: 'documents', of: (point) => point[1] },
  { heading: 'Changes a minute', limit: 'ops', of: (point) => rounded(point[2] * 60 / newest.stepS) }
]

/** The figure of each step of the line, by the second in which it begins. */
function steps (of) {
  const values = new Map()
  for (const [at, point] of points) {
    const from = at - at % stepS()
    values.set(from, Math.max(of(point), values.get(from) ?? 0))
  }
  return values
}

/** The times and figures of a line that goes in steps: nothing between two that don't follow one another. */
function line (values) {
  const [xs, ys] = [[], []]
  const step = stepS()
  const ats = [...values.keys()].sort((a, b) => a - b)
  ats.forEach((at, index) => {
    if (index > 0 && ats[index - 1] + step < at) push(at - 1, null)
    push(at, values.get(at))
    if (ats[index + 1] === at + step) return
    const end = Math.min(at + step, Math.max(newest.now, at + 1))
    push(end, values.get(at))
    push(end + 1, null)
  })
  return [xs, ys]

  function push (x, y) {
    if (xs.length > 0 && x <= xs.at(-1)) return
    xs.push(x)
    ys.push(y)
  }
}

function summary (kind) {
  const all = [...points.values()].map(kind.of)
  if (all.length === 0) return 'nothing was reported'
  const limit = newest.limits?.[kind.limit]
  return `highest ${count.format(Math.max(...all))}${limit === undefined ? '' : `, limit ${count.format(limit)}`}`
}

/** From zero to a little over the highest; the limit is in sight once half of it is used. */
function range (kind, highest) {
  const limit = newest.limits?.[kind.limit]
  const top = Math.max(4, (highest ?? 0) * 1.15)
  return [0, limit !== undefined && highest >= limit / 2 ? Math.max(top, limit * 1.08) : top]
}

function drawLimit (plot, kind) {
  const limit = newest.limits?.[kind.limit]
  if (limit === undefined || limit > plot.scales.y.max) return
  const { ctx, bbox } = plot
  const y = Math.round(plot.valToPos(limit, 'y', true))
  const ratio = devicePixelRatio
  ctx.save()
  ctx.strokeStyle = ctx.fillStyle = color('--bad')
  ctx.lineWidth = ratio
  ctx.setLineDash([6 * ratio, 4 * ratio])
  ctx.beginPath()
  ctx.moveTo(bbox.left, y)
  ctx.lineTo(bbox.left + bbox.width, y)
  ctx.stroke()
  ctx.font = `${12 * ratio}px sans-serif`
  ctx.textAlign = 'right'
  ctx.textBaseline = 'bottom'
  ctx.fillText('limit', bbox.left + bbox.width - 4 * ratio, y - 2 * ratio)
  ctx.restore()
}

// Distances of the lines behind a graph: there are no half connections.
const WHOLE = [...Array(10).keys()].flatMap((power) => [1, 2, 5].map((n) => n * 10 ** power))

/** The card of a graph: its place, and where it says figures in words. */
function makeCard (kind) {
  const make = (tag, fields, ...children) => {
    const element = Object.assign(document.createElement(tag), fields)
    element.append(...children)
    return element
  }
  const readout = make('span', { className: 'readout' })
  const place = make('div', { className: 'plot', role: 'img' })
  const caption = make('figcaption', {}, make('h2', { textContent: kind.heading }), readout)
  graphs.append(make('figure', { className: 'card graph' }, caption, place))
  return { place, readout }
}

function makeChart (uPlot, kind) {
  const { place, readout } = makeCard(kind)
  const axis = { stroke: () => color('--muted'), font: `12px ${color('--sans')}`, ticks: { show: false }, grid: { stroke: () => color('--line'), width: 1 } }
  let values = steps(kind.of)
  const plot = new uPlot({
    width: place.clientWidth,
    height: place.clientHeight,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: 'usage' } },
    scales: { x: { range: () => [newest.now - newest.spanS, newest.now] }, y: { range: (_, __, highest) => range(kind, highest) } },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map(tick) },
      { ...axis, size: 52, space: 36, incrs: WHOLE, values: (_, ticks) => ticks.map((value) => short.format(value)) }
    ],
    series: [{}, {
      stroke: () => color('--chart'),
      fill: () => color('--chart-ground'),
      width: 2,
      points: { show: false },
      paths: uPlot.paths.stepped({ align: 1 })
    }],
    hooks: {
      draw: [(plot) => drawLimit(plot, kind)],
      setCursor: [(plot) => {
        if (!(plot.cursor.left >= 0)) return (readout.textContent = summary(kind))
        const at = plot.posToVal(plot.cursor.left, 'x')
        const from = at - at % stepS()
        readout.textContent = `${values.has(from) ? count.format(values.get(from)) : 'nothing reported'} ${moment(from)}`
      }]
    }
  }, line(values), place)
  new ResizeObserver(() => {
    if (place.clientWidth > 0) plot.setSize({ width: place.clientWidth, height: place.clientHeight })
  }).observe(place)
  dark.addEventListener('change', () => plot.redraw())

  const update = () => {
    values = steps(kind.of)
    plot.setData(line(values))
    place.setAttribute('aria-label', `${kind.heading}, ${graphs.dataset.span.toLowerCase()}: ${summary(kind)}. The table below has the figures.`)
    if (plot.cursor.left < 0 || plot.cursor.left === undefined) readout.textContent = summary(kind)
  }
  return { update }
}

function showNow ({ gauges, onNodes, silentFor }) {
  document.getElementById('on-nodes').textContent = onNodes
  for (const { name, figure, of, level, warning, percent } of gauges) {
    const gauge = document.querySelector(`[data-gauge="${name}"]`)
    gauge.className = `gauge ${level}`
    gauge.querySelector('[data-figure]').textContent = figure
    gauge.querySelector('[data-of]').textContent = of
    gauge.querySelector('[data-warning]').textContent = warning
    gauge.querySelector('.gauge-fill').setAttribute('width', percent)
  }
  const silent = document.getElementById('silent')
  silent.hidden = silentFor === null
  silent.querySelector('span').textContent = silentFor ?? ''
}

/** What is new since the last answer. The point that runs may have grown, and one late report may come to the one before. */
async function load () {
  const known = Math.max(0, ...points.keys())
  if (known > 0) address.searchParams.set('since', known - newest.stepS)
  const answer = await fetch(address, { headers: { 'x-refresh': '1' }, redirect: 'manual' })
  if (answer.type === 'opaqueredirect') throw new Error('You are logged out. Load the page again to log in.')
  if (!answer.ok) throw new Error('The dashboard does not answer as it should. The figures are old.')
  newest = await answer.json()
  for (const [at, ...values] of newest.points) points.set(at, values)
  for (const at of points.keys()) if (at < newest.now - newest.spanS - newest.stepS) points.delete(at)
}

function say (words) {
  trouble.hidden = words === ''
  if (trouble.textContent !== words) trouble.textContent = words
}

/** The graphs, once there is something to draw; the table is then one click away. */
function draw (uPlot) {
  graphs.hidden = false
  for (const kind of KINDS) charts.push(makeChart(uPlot, kind))
  figures.open = false
}

async function keepNew (uPlot) {
  if (document.visibilityState === 'visible') {
    try {
      await load()
      if (charts.length === 0) draw(uPlot)
      showNow(newest)
      for (const chart of charts) chart.update()
      say('')
    } catch (error) {
      say(error instanceof TypeError ? 'The dashboard can’t be reached. The figures are old.' : error.message)
    }
  }
  setTimeout(keepNew, EVERY_MS, uPlot)
}

import('uplot').then(({ default: uPlot }) => keepNew(uPlot), (error) => {
  console.warn(error)
  say('The graphs are not in this build. The table has the same figures.')
})
