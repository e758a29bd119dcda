//! Curves and effects as inline SVG: no colours, only classes, so that the page's style serves light, dark and print.

use maud::{Markup, html};

use super::headline;
use super::model::{Axis, Effect, LineChart, Point, Tone};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// The class that gives a tone its colour.
pub fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Layer => "layer",
        Tone::Batch => "batch",
        Tone::Rms => "rms",
        Tone::Partial => "partial",
        Tone::Group => "group",
        Tone::Instance => "instance",
        Tone::Scale => "scale",
        Tone::Weight => "weight",
        Tone::Plain => "plain",
        Tone::First => "first",
        Tone::Second => "second",
        Tone::Third => "third",
        Tone::Fourth => "fourth",
        Tone::Fifth => "fifth",
    }
}

/// A chart's curves with their bands, axes and legend.
pub fn lines(chart: &LineChart) -> Markup {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = Scale::new(&chart.x, points().map(|p| p.x), [LEFT, WIDTH - RIGHT]);
    let y = Scale::new(&chart.y, points().flat_map(|p| [p.low, p.y, p.high]), [HEIGHT - BOTTOM, TOP]);
    html! {
        p.legend {
            @for series in &chart.series {
                span class=(class(series.tone)) {
                    svg viewBox="0 0 32 8" aria-hidden="true" { path.line d="M1 4L31 4" {} }
                    (series.label)
                }
            }
        }
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(chart.title) {
            (grid(&x, &y))
            @for series in &chart.series {
                g class=(class(series.tone)) {
                    path.band d=(band(&series.points, &x, &y)) {}
                    path.line d=(path(series.points.iter().map(|p| (x.at(p.x), y.at(p.y))))) {}
                }
            }
            text.name x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (chart.x.label) }
            text.name x="12" y=((TOP + HEIGHT - BOTTOM) / 2.0) text-anchor="middle"
                transform=(format!("rotate(-90 12 {})", (TOP + HEIGHT - BOTTOM) / 2.0)) { (chart.y.label) }
        }
    }
}

/// Grid lines with their numbers.
fn grid(x: &Scale, y: &Scale) -> Markup {
    html! {
        g.grid {
            @for tick in y.ticks() {
                line x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y.at(tick))) y2=(round(y.at(tick))) {}
                text x=(LEFT - 6.0) y=(round(y.at(tick) + 4.0)) text-anchor="end" { (number(tick)) }
            }
            @for tick in x.ticks() {
                line.tick x1=(round(x.at(tick))) x2=(round(x.at(tick))) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM + 4.0) {}
                text x=(round(x.at(tick))) y=(HEIGHT - BOTTOM + 17.0) text-anchor="middle" { (number(tick)) }
            }
        }
    }
}

fn band(points: &[Point], x: &Scale, y: &Scale) -> String {
    let upper = points.iter().map(|p| (x.at(p.x), y.at(p.high)));
    let lower = points.iter().rev().map(|p| (x.at(p.x), y.at(p.low)));
    path(upper.chain(lower)) + "Z"
}

/// A path through the points that can be drawn.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let drawable = points.filter(|(x, y)| x.is_finite() && y.is_finite());
    let step = |(index, (x, y))| format!("{}{} {}", if index == 0 { 'M' } else { 'L' }, round(x), round(y));
    drawable.enumerate().map(step).collect()
}

/// An effect as a dot on its 95% interval, each seed as a small mark, the rule as a line.
pub fn effect(effect: &Effect) -> Markup {
    let interval = effect.interval.unwrap_or([effect.mean; 2]);
    let marks = effect.seeds.iter().chain(&effect.lines).chain(&interval).copied();
    let scale = Scale::new(&Axis::default(), marks, [12.0, WIDTH - 12.0]);
    let at = |value: f64| round(scale.at(value));
    html! {
        svg.effect viewBox=(format!("0 0 {WIDTH} 58")) role="img" aria-label=(headline::effect(effect)) {
            g.grid {
                line x1="0" x2=(WIDTH) y1="38" y2="38" {}
                @for tick in scale.ticks() {
                    line.tick x1=(at(tick)) x2=(at(tick)) y1="38" y2="42" {}
                    text x=(at(tick)) y="55" text-anchor="middle" { (number(tick)) }
                }
            }
            @for &line in &effect.lines {
                line.rule x1=(at(line)) x2=(at(line)) y1="12" y2="38" {}
                text.rule x=(at(line)) y="8" text-anchor=(anchor(scale.at(line))) { "rule: " (number(line)) }
            }
            @for &seed in effect.seeds.iter().filter(|seed| seed.is_finite()) {
                line.seed x1=(at(seed)) x2=(at(seed)) y1="28" y2="34" {}
            }
            @if effect.mean.is_finite() {
                line.interval x1=(at(interval[0])) x2=(at(interval[1])) y1="21" y2="21" {}
                circle cx=(at(effect.mean)) cy="21" r="5" {}
            }
        }
    }
}

/// How a text at this place stays within the picture.
fn anchor(place: f64) -> &'static str {
    match place {
        place if place < 40.0 => "start",
        place if place > WIDTH - 40.0 => "end",
        _ => "middle",
    }
}

/// From values to places on the paper.
struct Scale {
    log: bool,
    values: [f64; 2],
    places: [f64; 2],
}

impl Scale {
    /// A scale that holds all values that can be drawn; a linear one keeps some air around them.
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, places: [f64; 2]) -> Self {
        let log = axis.log;
        let drawable = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let fold = |[low, high]: [f64; 2], value: f64| [low.min(value), high.max(value)];
        let [mut low, mut high] = drawable.fold([f64::INFINITY, f64::NEG_INFINITY], fold);
        if low > high {
            [low, high] = [1.0, 10.0];
        }
        if low == high {
            [low, high] = if log { [low / 2.0, high * 2.0] } else { [low - 1.0, high + 1.0] };
        }
        if !log {
            // Zero belongs to the picture when it is near.
            let air = 0.06 * (high - low);
            low = if low >= 0.0 && low < 0.4 * high { 0.0 } else { low - air };
            high += air;
        }
        Self { log, values: [low, high], places }
    }

    fn at(&self, value: f64) -> f64 {
        let by = |value: f64| if self.log { value.ln() } else { value };
        let [low, high] = self.values.map(by);
        let [from, to] = self.places;
        from + (to - from) * (by(value) - low) / (high - low)
    }

    /// Round numbers within the scale: three to seven of them.
    fn ticks(&self) -> Vec<f64> {
        let [low, high] = self.values;
        let inside = |tick: &f64| (low..=high).contains(tick);
        if self.log {
            let decades = (high / low).log10();
            let steps: &[f64] = if decades < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let stride = if decades > 6.0 { 2.0 } else { 1.0 };
            let first = low.log10().floor() - 1.0;
            let powers = (0..40).map(|n| first + f64::from(n) * stride).take_while(|p| *p <= high.log10());
            return powers
                .flat_map(|p| steps.iter().map(move |step| step * 10f64.powf(p)))
                .filter(inside)
                .collect();
        }
        let rough = (high - low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let first = (low / step).ceil();
        (0..20).map(|n| (first + f64::from(n)) * step).take_while(|tick| *tick <= high).collect()
    }
}

/// A tick's number, short.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:.1e}").replace(".0e", "e").replace('-', "−");
    }
    // Ticks are round: what lies beyond six digits is noise.
    format!("{}", (value * 1e6).round() / 1e6).replace('-', "−")
}

fn round(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(log: bool, low: f64, high: f64) -> Scale {
        Scale::new(&Axis { log, ..Axis::default() }, [low, high].into_iter(), [0.0, 100.0])
    }

    #[test]
    fn ticks_are_round_and_few() {
        for (log, low, high) in [
            (false, 0.0, 1.0),
            (false, -3.0, 17.2),
            (false, -1e-5, 1e-5),
            (true, 1e-7, 1.0),
            (true, 2.0, 70.0),
        ] {
            let ticks = scale(log, low, high).ticks();
            assert!((3..=8).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.iter().all(|&tick| number(tick).chars().count() <= 5), "{ticks:?}");
        }
    }

    #[test]
    fn a_scale_reaches_from_edge_to_edge() {
        let log = scale(true, 0.01, 100.0);
        assert!((log.at(0.01) - 0.0).abs() < 1e-9 && (log.at(1.0) - 50.0).abs() < 1e-9);
        let linear = scale(false, 0.0, 1.0);
        assert!(linear.at(0.0) == 0.0 && linear.at(1.0) > 90.0 && linear.at(1.0) < 100.0);
    }

    #[test]
    fn nothing_to_draw_is_no_reason_to_fail() {
        let chart = LineChart {
            title: "t".to_owned(),
            caption: String::new(),
            x: Axis::default(),
            y: Axis { label: "y".to_owned(), log: true },
            series: vec![super::super::model::Series {
                label: "s".to_owned(),
                tone: Tone::Layer,
                points: Vec::new(),
            }],
        };
        let svg = lines(&chart).into_string();
        assert!(svg.contains("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
