//! The study's pictures.

use super::{CARD, PLACEMENTS, Size, blocks, crossed, language};
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Point, Series, Tone};
use crate::study::{Arm, Results};

/// All of them, in the order of the page.
pub fn all(size: &Size, all: &Results) -> Vec<Figure> {
    vec![
        Figure::Matrix(trainings(all)),
        Figure::Lines(warm_up(size, all)),
        Figure::Lines(by_block(size, all)),
        Figure::Lines(by_depth(size, all)),
        Figure::Matrix(crossed(all)),
        Figure::Lines(learning(all)),
    ]
}

/// The placements' arms, without norm too.
fn placements() -> &'static [Arm] {
    &CARD.arms[..PLACEMENTS.len()]
}

/// Cool for knowing all, warm for guessing.
fn loss_cell(loss: f64, floor: f64, guessing: f64) -> Cell {
    let share = ((loss - floor) / (guessing - floor)).clamp(0.0, 1.0);
    Cell::new(format!("{loss:.2}"), 1.0 - 2.0 * share)
}

fn trainings(all: &Results) -> Matrix {
    let (floor, guessing) = (language::floor(), f64::from(language::SYMBOLS).ln());
    let runs: Vec<(f64, bool)> =
        [false, true].into_iter().flat_map(|warm_up| blocks::RATES.map(|rate| (rate, warm_up))).collect();
    let rows = placements().iter().map(|arm| {
        let cell = |&(rate, warm_up): &(f64, bool)| match all.mean(arm.name, &blocks::run_name(rate, warm_up))
        {
            loss if loss.is_nan() => Cell::new("", 0.0),
            loss => loss_cell(loss, floor, guessing),
        };
        MatrixRow::new(arm.label, runs.iter().map(cell).collect())
    });
    let columns: Vec<String> = runs
        .iter()
        .map(|(rate, warm_up)| format!("rate {rate:e}, {}", if *warm_up { "warm-up" } else { "at once" }))
        .collect();
    Matrix::new(
        "Which placement learns",
        &format!(
            "Loss at the end of training, in nats a symbol, the mean over seeds. Blue has learnt the language \
             ({floor:.2} is all there is to know), orange guesses ({guessing:.2}). At once: the full learning rate \
             from the first update on; warm-up: in a straight line over the first third."
        ),
        &columns.iter().map(String::as_str).collect::<Vec<_>>(),
        rows.collect(),
    )
}

fn warm_up(size: &Size, all: &Results) -> LineChart {
    let rate = blocks::RATES[blocks::RATES.len() - 1];
    let series = |arm: &str, warm_up: bool, label: &'static str, tone: Tone| {
        let arm = CARD.arms.iter().find(|of| of.name == arm).expect("an arm of the card");
        let arm = Arm { label, tone, ..*arm };
        all.series(&arm, &blocks::run_name(rate, warm_up), 1.0)
    };
    LineChart {
        title: format!("Two swapped lines, learning rate {rate:e}"),
        caption: format!(
            "Training loss of a model of {} blocks; the mean over seeds, with the lowest and the highest. Compare each \
             placement's two lines: with warm-up it should lose at first, while the rate is small; what matters is \
             where it ends. Guessing is at {:.2}.",
            size.depth,
            f64::from(language::SYMBOLS).ln(),
        ),
        x: Axis::linear("updates"),
        y: Axis::linear("loss, nats a symbol"),
        series: vec![
            series("post", false, "post, at once", Tone::First),
            series("post", true, "post, warm-up", Tone::Fourth),
            series("pre", false, "pre, at once", Tone::Second),
            series("pre", true, "pre, warm-up", Tone::Fifth),
        ],
    }
}

fn deepest(size: &Size) -> usize {
    size.depths[size.depths.len() - 1]
}

fn by_block(size: &Size, all: &Results) -> LineChart {
    let depth = deepest(size);
    let name = format!("gradient by layer of {depth}");
    let none = all.series(&placements()[0], &name, 1.0).points;
    LineChart {
        title: format!("Before training: the gradient through {depth} blocks"),
        caption: format!(
            "How strongly the loss at one position pulls at each block's last matrix: a line that rises to the right \
             pulls most near the output, as post-LN's should by the theory. Without norm the gradient goes from {:.0e} in the \
             last block to {:.0e} in the first, far off this chart.",
            none.last().map_or(f64::NAN, |point| point.y),
            none.first().map_or(f64::NAN, |point| point.y),
        ),
        x: Axis::linear("block, from input to output"),
        y: Axis::log("norm of the gradient"),
        series: placements()[1..].iter().map(|arm| all.series(arm, &name, 1.0)).collect(),
    }
}

fn by_depth(size: &Size, all: &Results) -> LineChart {
    let name = "gradient of the last layer";
    let mut series: Vec<Series> = placements()[1..].iter().map(|arm| all.series(arm, name, 1.0)).collect();
    let pre = series[1].points[0].y * (size.depths[0] as f64).sqrt();
    let root = |&depth: &usize| {
        let (x, y) = (depth as f64, pre / (depth as f64).sqrt());
        Point { x, y, low: y, high: y }
    };
    series.push(Series {
        label: "1/root of the depth".to_owned(),
        tone: Tone::Plain,
        points: size.depths.iter().map(root).collect(),
    });
    LineChart {
        title: "Before training: the last block's gradient as models get deeper".to_owned(),
        caption: "The theory: post-LN's stays, so that the blocks near the output are pulled as hard as in a shallow \
                  model, which is what warm-up tames; pre-LN's falls along the grey line."
            .to_owned(),
        x: Axis::log("blocks"),
        y: Axis::log("norm of the gradient"),
        series,
    }
}

/// The best training of an arm by its mean over the seeds, and the loss.
fn best(all: &Results, arm: &str) -> (usize, f64) {
    let losses = (0..crossed::STEPS).map(|step| (step, all.mean(arm, &crossed::run_name(step))));
    losses.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there are trainings")
}

fn crossed(all: &Results) -> Matrix {
    let [neither, norm, residual, both] = ["neither", "norm", "residual", "both"].map(|arm| best(all, arm).1);
    let row = |label: &str, losses: [f64; 2]| {
        MatrixRow::new(label, losses.map(|loss| loss_cell(loss, 0.0, 10f64.ln())).into())
    };
    let words = |change: f64| if change < 0.0 { "lowers" } else { "raises" };
    Matrix::new(
        "Layer norm and residual connections, two by two",
        &format!(
            "Loss of a deep network on handwritten digits, each cell at its best learning rate and initialization, the \
             mean over seeds: blue is good. Alone, layer norm {} the loss by {:.2} and the residual connection {} it by \
             {:.2}; with the other in place, layer norm {} it by {:.2} and the residual connection {} it by {:.2}.",
            words(norm - neither),
            (norm - neither).abs(),
            words(residual - neither),
            (residual - neither).abs(),
            words(both - residual),
            (both - residual).abs(),
            words(both - norm),
            (both - norm).abs(),
        ),
        &["no norm", "layer norm"],
        vec![row("no residual", [neither, norm]), row("residual", [residual, both])],
    )
}

fn learning(all: &Results) -> LineChart {
    let arms = &CARD.arms[PLACEMENTS.len()..];
    LineChart {
        title: "The four at their best".to_owned(),
        caption: "Training loss on the digits, each at its best learning rate and initialization; means over seeds, \
                  with the lowest and the highest."
            .to_owned(),
        x: Axis::linear("updates"),
        y: Axis::linear("loss, nats"),
        series: arms
            .iter()
            .map(|arm| all.series(arm, &crossed::run_name(best(all, arm.name).0), 1.0))
            .collect(),
    }
}
