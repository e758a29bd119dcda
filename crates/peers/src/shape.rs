//! Shapes, as they are given on the command line.

use std::fmt;
use std::str::FromStr;

/// Rows x features, or images x channels x height x width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// One of a list in this program.
    pub fn new(axes: &[usize]) -> Self {
        Self(axes.to_vec())
    }

    /// The axes.
    pub fn axes(&self) -> &[usize] {
        &self.0
    }

    /// How many numbers it has.
    pub fn numbers(&self) -> usize {
        self.0.iter().product()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&axes.join("x"))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let axes: Option<Vec<usize>> =
            text.split('x').map(|axis| axis.trim().parse().ok().filter(|&axis| axis > 0)).collect();
        let axes = axes.filter(|axes| matches!(axes.len(), 2 | 4));
        let axes = axes.ok_or_else(|| {
            format!("{text:?} is neither rows x features, such as 512x768, nor NxCxHxW, such as 8x64x32x32")
        })?;
        let numbers = axes.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
        match numbers {
            Some(..=0x1_0000_0000) => Ok(Self(axes)),
            _ => Err(format!("{text} is more than 4 thousand million numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn shapes_are_read_and_shown() {
        for text in ["512x768", "32x320x64x64"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        for text in ["", "512", "512x", "0x4", "1x2x3", "-1x4", "99999999x99999999"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }
}
