//! Digits that the program draws itself: a skeleton of pen strokes, a hand that is never twice the same, a pen, paper.
//!
//! Each digit has a few skeletons (a seven with and without its bar). A picture takes one, bends its points a little,
//! runs a smooth curve through them, slants, turns, stretches and shifts the whole, and inks every pixel by its
//! distance from the curve; some pictures lose a stripe of ink, and the paper has specks. The same part and index
//! always give the same picture.

use rayon::prelude::*;

use super::Images;
use crate::rng::{Purpose, Rng};

/// Names the way of drawing: a change of any picture raises it, and with it every run's settings.
pub const VERSION: u32 = 1;
const SIDE: usize = 28;

/// Two sets of pictures that share nothing.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// To learn from.
    Train,
    /// To test with.
    Test,
}

/// What is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paper {
    /// White: the digits alone, for looking at.
    Clean,
    /// With grain and specks, for learning.
    Grainy,
}

/// The first `count` pictures of a part, the digits in random order.
pub fn draw(part: Part, paper: Paper, count: usize) -> Images {
    let mut images =
        Images { rows: SIDE, columns: SIDE, pixels: vec![0; count * SIDE * SIDE], labels: vec![0; count] };
    images.pixels.par_chunks_mut(SIDE * SIDE).zip(&mut images.labels).enumerate().for_each(
        |(index, (pixels, label))| {
            let index = u32::try_from(index).expect("fewer pictures than 2^32");
            let mut rng = Rng::new(part as u64, Purpose::Draw, index);
            *label = u8::try_from(rng.below(10)).expect("a digit");
            picture(*label, paper, &mut rng, pixels);
        },
    );
    images
}

type Point = [f32; 2];
/// Strokes, each a list of points that a smooth curve runs through; x to the right, y down, both within 0 to 1.
type Skeleton = &'static [&'static [Point]];

/// The ways to write each digit.
#[rustfmt::skip]
const SKELETONS: [&[Skeleton]; 10] = [
    &[
        &[&[[0.5, 0.05], [0.22, 0.2], [0.15, 0.5], [0.25, 0.85], [0.5, 0.96], [0.76, 0.82], [0.85, 0.5], [0.75, 0.17], [0.5, 0.05]]],
        &[&[[0.62, 0.08], [0.35, 0.1], [0.2, 0.45], [0.28, 0.86], [0.55, 0.95], [0.8, 0.7], [0.8, 0.3], [0.55, 0.06], [0.4, 0.1]]],
    ],
    &[
        &[&[[0.5, 0.04], [0.5, 0.5], [0.5, 0.96]]],
        &[&[[0.3, 0.25], [0.42, 0.15], [0.52, 0.04], [0.52, 0.5], [0.52, 0.96]]],
        &[&[[0.28, 0.26], [0.5, 0.05], [0.5, 0.95]], &[[0.28, 0.95], [0.5, 0.96], [0.74, 0.95]]],
    ],
    &[
        &[&[[0.18, 0.25], [0.35, 0.07], [0.65, 0.07], [0.78, 0.3], [0.6, 0.58], [0.35, 0.78], [0.18, 0.95]], &[[0.18, 0.95], [0.5, 0.94], [0.85, 0.95]]],
        &[&[[0.2, 0.22], [0.5, 0.05], [0.78, 0.25], [0.62, 0.6], [0.25, 0.9], [0.18, 0.8], [0.35, 0.76], [0.6, 0.92], [0.85, 0.88]]],
    ],
    &[
        &[&[[0.2, 0.15], [0.5, 0.05], [0.76, 0.2], [0.68, 0.42], [0.42, 0.48]], &[[0.42, 0.48], [0.75, 0.58], [0.8, 0.8], [0.52, 0.96], [0.18, 0.85]]],
        &[&[[0.2, 0.07], [0.48, 0.06], [0.76, 0.07]], &[[0.76, 0.07], [0.58, 0.25], [0.42, 0.42]], &[[0.42, 0.42], [0.76, 0.52], [0.78, 0.82], [0.48, 0.96], [0.18, 0.84]]],
    ],
    &[
        &[&[[0.62, 0.04], [0.4, 0.36], [0.14, 0.66]], &[[0.14, 0.66], [0.5, 0.66], [0.88, 0.65]], &[[0.66, 0.36], [0.65, 0.66], [0.64, 0.96]]],
        &[&[[0.2, 0.06], [0.18, 0.3], [0.24, 0.52], [0.5, 0.54], [0.76, 0.48]], &[[0.78, 0.06], [0.76, 0.5], [0.74, 0.96]]],
    ],
    &[
        &[&[[0.78, 0.06], [0.5, 0.06], [0.27, 0.07]], &[[0.27, 0.07], [0.25, 0.25], [0.22, 0.45]], &[[0.22, 0.45], [0.5, 0.36], [0.78, 0.5], [0.78, 0.8], [0.5, 0.96], [0.18, 0.86]]],
        &[&[[0.8, 0.1], [0.55, 0.06], [0.3, 0.12], [0.28, 0.4], [0.55, 0.42], [0.78, 0.62], [0.62, 0.9], [0.22, 0.92]]],
    ],
    &[
        &[&[[0.68, 0.05], [0.38, 0.25], [0.2, 0.6], [0.3, 0.9], [0.58, 0.95], [0.8, 0.76], [0.68, 0.54], [0.42, 0.54], [0.22, 0.7]]],
        &[&[[0.36, 0.04], [0.22, 0.4], [0.2, 0.75], [0.42, 0.96], [0.72, 0.88], [0.74, 0.64], [0.5, 0.54], [0.24, 0.66]]],
    ],
    &[
        &[&[[0.16, 0.08], [0.5, 0.07], [0.84, 0.07]], &[[0.84, 0.07], [0.58, 0.5], [0.4, 0.96]]],
        &[&[[0.16, 0.08], [0.5, 0.07], [0.84, 0.07]], &[[0.84, 0.07], [0.62, 0.45], [0.45, 0.96]], &[[0.36, 0.5], [0.56, 0.49], [0.76, 0.48]]],
        &[&[[0.18, 0.2], [0.24, 0.08], [0.55, 0.1], [0.82, 0.06], [0.66, 0.36], [0.5, 0.66], [0.46, 0.96]]],
    ],
    &[
        &[&[[0.76, 0.2], [0.5, 0.05], [0.25, 0.2], [0.38, 0.42], [0.64, 0.54], [0.8, 0.78], [0.5, 0.96], [0.2, 0.78], [0.36, 0.54], [0.62, 0.42], [0.76, 0.2]]],
        &[&[[0.5, 0.05], [0.27, 0.15], [0.3, 0.4], [0.5, 0.47], [0.72, 0.36], [0.72, 0.14], [0.5, 0.05]], &[[0.5, 0.47], [0.22, 0.6], [0.22, 0.86], [0.5, 0.96], [0.78, 0.84], [0.78, 0.6], [0.5, 0.47]]],
    ],
    &[
        &[&[[0.78, 0.26], [0.52, 0.05], [0.24, 0.2], [0.24, 0.42], [0.5, 0.5], [0.76, 0.34], [0.79, 0.15], [0.78, 0.5], [0.74, 0.96]]],
        &[&[[0.76, 0.18], [0.48, 0.05], [0.24, 0.22], [0.32, 0.46], [0.58, 0.48], [0.78, 0.26], [0.76, 0.62], [0.58, 0.9], [0.28, 0.94]]],
    ],
];

fn picture(digit: u8, paper: Paper, rng: &mut Rng, pixels: &mut [u8]) {
    let ways = SKELETONS[usize::from(digit)];
    let skeleton = ways[rng.below(u32::try_from(ways.len()).expect("few ways")) as usize];
    let hand = Hand::new(rng);
    let curves: Vec<Vec<Point>> = skeleton.iter().map(|stroke| hand.stroke(stroke, rng)).collect();
    let pen = rng.range(0.9, 1.7);
    let darkness = rng.range(0.7, 1.0);
    let fade = Fade::new(rng);
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let at = [(index % SIDE) as f32 + 0.5, (index / SIDE) as f32 + 0.5];
        let distance = curves.iter().map(|curve| distance(curve, at)).fold(f32::INFINITY, f32::min);
        // Ink falls off over one pixel at the stroke's edge.
        let ink = (pen - distance + 0.5).clamp(0.0, 1.0) * darkness * fade.at(at);
        *pixel = quantise(if paper == Paper::Grainy { ink + speck(rng) } else { ink });
    }
}

/// A hand: one affine map for the whole digit and how unsteady it is.
struct Hand {
    map: [Point; 2],
    centre: Point,
    jitter: f32,
}

impl Hand {
    fn new(rng: &mut Rng) -> Self {
        let [cos, sin] = turn(0.05 * rng.bell());
        let slant = 0.15 * rng.bell();
        let (wide, high) = (rng.range(12.0, 18.0), rng.range(17.0, 21.0));
        // Stretch, then slant, then turn.
        let map = [[wide * cos, -high * (slant * cos + sin)], [wide * sin, high * (cos - slant * sin)]];
        let centre = [14.0 + 0.9 * rng.bell(), 14.0 + 0.9 * rng.bell()];
        Self { map, centre, jitter: rng.range(0.02, 0.05) }
    }

    /// The stroke's points, moved a little, joined by a Catmull-Rom curve, on the paper.
    fn stroke(&self, points: &[Point], rng: &mut Rng) -> Vec<Point> {
        let points: Vec<Point> =
            points.iter().map(|p| p.map(|c| c - 0.5 + self.jitter * rng.bell())).collect();
        let last = points.len() - 1;
        let mut curve = Vec::with_capacity(last * 6 + 1);
        for i in 0..last {
            let around = [points[i.saturating_sub(1)], points[i], points[i + 1], points[(i + 2).min(last)]];
            curve.extend((0..6).map(|step| self.paper(catmull_rom(around, step as f32 / 6.0))));
        }
        curve.push(self.paper(points[last]));
        curve
    }

    fn paper(&self, [x, y]: Point) -> Point {
        std::array::from_fn(|k| self.map[k][0] * x + self.map[k][1] * y + self.centre[k])
    }
}

/// Cosine and sine of the angle whose half has tangent `t`, without a library's sine, whose last bit depends on the
/// platform.
fn turn(t: f32) -> Point {
    let square = t * t;
    [(1.0 - square) / (1.0 + square), 2.0 * t / (1.0 + square)]
}

/// The curve through b and c at t, from 0 at b to 1 at c.
fn catmull_rom([a, b, c, d]: [Point; 4], t: f32) -> Point {
    std::array::from_fn(|k| {
        let cubic = 3.0 * (b[k] - c[k]) + d[k] - a[k];
        let square = 2.0 * a[k] - 5.0 * b[k] + 4.0 * c[k] - d[k];
        b[k] + 0.5 * t * (c[k] - a[k] + t * (square + t * cubic))
    })
}

/// How far a point is from a chain of line segments.
fn distance(curve: &[Point], [x, y]: Point) -> f32 {
    let squared = curve.windows(2).map(|ends| {
        let [[ax, ay], [bx, by]] = [ends[0], ends[1]];
        let (dx, dy) = (bx - ax, by - ay);
        let along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).max(1e-12)).clamp(0.0, 1.0);
        (x - ax - along * dx).powi(2) + (y - ay - along * dy).powi(2)
    });
    squared.fold(f32::INFINITY, f32::min).sqrt()
}

/// A stripe where the pen ran dry, in a sixth of the pictures.
struct Fade {
    normal: Point,
    offset: f32,
    width: f32,
}

impl Fade {
    fn new(rng: &mut Rng) -> Self {
        let normal = turn(rng.range(-1.0, 1.0));
        let width = if rng.below(6) == 0 { rng.range(0.8, 2.0) } else { 0.0 };
        Self { normal, offset: 4.0 * rng.bell(), width }
    }

    fn at(&self, [x, y]: Point) -> f32 {
        let away = ((x - 14.0) * self.normal[0] + (y - 14.0) * self.normal[1] - self.offset).abs();
        if self.width == 0.0 { 1.0 } else { (away / self.width - 0.3).clamp(0.0, 1.0) }
    }
}

/// Grain of the paper everywhere, and a rare dark speck.
fn speck(rng: &mut Rng) -> f32 {
    let grain = 0.04 * rng.bell();
    if rng.below(400) == 0 { grain + rng.range(0.2, 0.8) } else { grain }
}

fn quantise(ink: f32) -> u8 {
    #[allow(clippy::cast_possible_truncation, reason = "clamped to a byte's range")]
    let byte = (ink.clamp(0.0, 1.0) * 255.0).round() as u8;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_depends_on_its_part_and_index_only() {
        let many = draw(Part::Train, Paper::Grainy, 50);
        let few = draw(Part::Train, Paper::Grainy, 20);
        assert_eq!(few, many.first(20));
        assert_ne!(few, draw(Part::Test, Paper::Grainy, 20));
    }

    #[test]
    fn all_digits_come_about_equally_often() {
        let labels = draw(Part::Train, Paper::Grainy, 2000).labels;
        for digit in 0..10 {
            let count = labels.iter().filter(|&&label| label == digit).count();
            assert!((150..250).contains(&count), "digit {digit}: {count} of 2000");
        }
    }

    #[test]
    fn every_picture_has_ink_and_paper() {
        let images = draw(Part::Test, Paper::Grainy, 500);
        for index in 0..images.len() {
            let dark = images.picture(index).iter().filter(|&&p| p > 128).count();
            assert!((15..400).contains(&dark), "picture {index} has {dark} dark pixels");
        }
    }

    #[test]
    fn a_curve_passes_through_its_points() {
        let points = [[0.0, 0.0], [1.0, 2.0], [3.0, 1.0], [4.0, 4.0]];
        assert_eq!(catmull_rom(points, 0.0), points[1]);
        assert_eq!(catmull_rom(points, 1.0), points[2]);
    }
}
