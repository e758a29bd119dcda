//! The tensors of a case: named, drawn at random, and written to files for the peers that live in other processes.

use std::fs;
use std::ops::{Index, IndexMut};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Error;
use crate::number::Number;
use crate::operators::{Direction, Operator};
use crate::shape::Shape;

/// A tensor that a pass reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The input.
    X,
    /// What is added to the input.
    Residual,
    /// gamma.
    Weight,
    /// beta.
    Bias,
    /// The running mean.
    Mean,
    /// The running variance.
    Var,
    /// The gradient of the output.
    Dy,
    /// The gradient of the sum that a residual operator gives back.
    Dsum,
    /// The output.
    Y,
    /// x + residual.
    Sum,
    /// The gradient of the input.
    Dx,
    /// The gradient of gamma.
    Dweight,
    /// The gradient of beta.
    Dbias,
}

impl Name {
    /// As many as there are.
    const COUNT: usize = Self::Dbias as usize + 1;

    /// The name in files and in `peers.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::Residual => "residual",
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::Mean => "mean",
            Self::Var => "var",
            Self::Dy => "dy",
            Self::Dsum => "dsum",
            Self::Y => "y",
            Self::Sum => "sum",
            Self::Dx => "dx",
            Self::Dweight => "dweight",
            Self::Dbias => "dbias",
        }
    }

    /// As large as x; the others have a number a unit.
    pub fn is_large(self) -> bool {
        matches!(self, Self::X | Self::Residual | Self::Dy | Self::Dsum | Self::Y | Self::Sum | Self::Dx)
    }

    /// Centre and spread of its random numbers, and whether they are positive.
    fn drawn(self) -> (f64, f64, bool) {
        match self {
            Self::X => (0.5, 1.0, false),
            Self::Weight => (1.0, 0.1, false),
            Self::Bias | Self::Mean => (0.0, 0.1, false),
            Self::Var => (0.5, 0.5, true),
            _ => (0.0, 1.0, false),
        }
    }
}

/// Tensors by name; those that aren't there are empty.
#[derive(Debug, Clone)]
pub struct Tensors<T>([Vec<T>; Name::COUNT]);

impl<T> Default for Tensors<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Vec::new()))
    }
}

impl<T> Tensors<T> {
    /// Several at once, to write. All different.
    pub fn get_mut<const N: usize>(&mut self, names: [Name; N]) -> [&mut Vec<T>; N] {
        let at = names.map(|name| name as usize);
        self.0.get_disjoint_mut(at).unwrap_or_else(|_| panic!("{names:?} has a name twice"))
    }
}

impl<T> Index<Name> for Tensors<T> {
    type Output = Vec<T>;

    fn index(&self, name: Name) -> &Vec<T> {
        &self.0[name as usize]
    }
}

impl<T> IndexMut<Name> for Tensors<T> {
    fn index_mut(&mut self, name: Name) -> &mut Vec<T> {
        &mut self.0[name as usize]
    }
}

impl<T: Number> Tensors<T> {
    /// All that an operator's passes read, the same numbers in every run.
    pub fn draw(operator: Operator, shape: &Shape, directions: &[Direction]) -> Self {
        let (mut tensors, mut rng) = (Self::default(), ChaCha8Rng::seed_from_u64(0));
        for &direction in directions {
            let case = crate::operators::Case { operator, direction, shape: shape.clone() };
            for name in case.inputs() {
                if tensors[name].is_empty() {
                    tensors[name] = random(case.len(name), name.drawn(), &mut rng);
                }
            }
        }
        tensors
    }

    /// Writes those that are there into a folder, as raw numbers.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn write(&self, folder: &Path, names: &[Name]) -> Result<(), Error> {
        for &name in names {
            let path = file(folder, name.name());
            fs::write(&path, bytemuck::cast_slice(&self[name])).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Reads what a peer has written: `out-NAME.bin`.
    ///
    /// # Errors
    /// A file that isn't there.
    pub fn read(folder: &Path, names: &[Name]) -> Result<Self, Error> {
        let mut tensors = Self::default();
        for &name in names {
            let path = file(folder, &format!("out-{}", name.name()));
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            tensors[name] = bytemuck::pod_collect_to_vec(&bytes);
        }
        Ok(tensors)
    }
}

/// The file of a tensor.
fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.bin"))
}

fn random<T: Number>(len: usize, drawn: (f64, f64, bool), rng: &mut ChaCha8Rng) -> Vec<T> {
    let (centre, spread, positive) = drawn;
    let numbers = StandardNormal.sample_iter(rng).take(len);
    numbers.map(|z: f64| T::narrow(centre + spread * if positive { z.abs() } else { z })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = Tensors::<f32>::draw(Operator::LayerNorm, &Shape::new(&[3, 5]), &Direction::ALL);
        assert_eq!((drawn[Name::X].len(), drawn[Name::Weight].len()), (15, 5));
        assert!(drawn[Name::Residual].is_empty(), "layer norm reads none");
        drawn.write(folder.path(), &[Name::X]).unwrap();
        let [from, to] = ["x", "out-x"].map(|name| file(folder.path(), name));
        fs::rename(from, to).unwrap();
        assert_eq!(Tensors::<f32>::read(folder.path(), &[Name::X]).unwrap()[Name::X], drawn[Name::X]);
    }
}
