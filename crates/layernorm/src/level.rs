//! Instruction-set levels: which one a call uses. The level changes the speed, never a bit.

use crate::Error;
use std::{fmt, str::FromStr, sync::OnceLock};

/// The environment variable that sets the default level: `portable`, `avx2`, `avx512` or `neon`.
pub const LEVEL_VARIABLE: &str = "LAYERNORM_LEVEL";

/// An instruction set that the kernels are compiled for.
///
/// ```
/// use layernorm::Level;
///
/// assert!(Level::Portable.is_available());
/// assert_eq!("avx512".parse(), Ok(Level::Avx512));
/// println!("this machine has {:?}", Level::available().collect::<Vec<_>>());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Arrays instead of vector registers: runs everywhere. Slow where the processor's baseline has no
    /// fused multiply-add (x86-64), because each one is then a call.
    Portable,
    /// 128-bit vectors of aarch64.
    Neon,
    /// 256-bit vectors of x86-64, with FMA and F16C.
    Avx2,
    /// 512-bit vectors of x86-64 (AVX-512 F, DQ, BW and VL).
    Avx512,
}

impl Level {
    /// Every level, from the plainest to the widest.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// Does this machine have it?
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns, reason = "which levels are left depends on the architecture")]
            _ => false,
        }
    }

    /// The levels of this machine.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The widest level of this machine.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// The level of a call that names none: [`LEVEL_VARIABLE`] if set, else [`Level::best`].
    /// The variable is read once.
    ///
    /// # Errors
    /// [`Error::LevelName`] if the variable names no level, [`Error::Level`] if this machine lacks it.
    ///
    /// ```
    /// # use layernorm::Level;
    /// assert!(Level::from_environment()?.is_available());
    /// # Ok::<(), layernorm::Error>(())
    /// ```
    pub fn from_environment() -> Result<Self, Error> {
        static DEFAULT: OnceLock<Result<Level, Error>> = OnceLock::new();
        let default = DEFAULT.get_or_init(|| match std::env::var_os(LEVEL_VARIABLE) {
            None => Ok(Self::best()),
            Some(name) => name.to_string_lossy().parse::<Self>()?.checked(),
        });
        match default {
            Ok(level) => Ok(*level),
            Err(error) => Err(error.clone()),
        }
    }

    /// This level, if the machine has it.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        if self.is_available() { Ok(self) } else { Err(Error::Level { asked: self, best: Self::best() }) }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|level| level.to_string().eq_ignore_ascii_case(name))
            .ok_or_else(|| Error::LevelName { value: name.to_owned() })
    }
}
