//! The vector registers, where AES leaves its round keys (the first of them are the key) and `memcpy` what it copied.
//!
//! A thread that then waits keeps them: the kernel saves them with it, and a core dump shows them. glibc copies through the
//! sixteen that only AVX-512 has, which little else ever overwrites. Leans on x86-64. Elsewhere nothing is cleared: the
//! next work overwrites what is there.

/// Clears them. They belong to no caller: by the calling convention none survives a call.
#[inline(never)]
pub(super) fn clear() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: the line above found AVX, the only thing that the function needs.
            unsafe { clear_lower() };
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the line above found AVX-512, the only thing that the function needs.
            unsafe { clear_upper() };
        }
    }
}

/// Registers 0 to 15, in their whole width.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx")]
fn clear_lower() {
    std::arch::x86_64::_mm256_zeroall();
}

/// Registers 16 to 31.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f")]
fn clear_upper() {
    macro_rules! clear {
        ($($register:tt)*) => {
            // SAFETY: each line sets one register to zero and touches nothing else; all sixteen are declared as changed,
            // and `target_feature` says that they exist.
            unsafe {
                std::arch::asm!(
                    $(concat!("vpxord ", $register, ", ", $register, ", ", $register),)*
                    $(out($register) _,)*
                    options(nomem, nostack, preserves_flags),
                )
            }
        };
    }
    clear!("zmm16" "zmm17" "zmm18" "zmm19" "zmm20" "zmm21" "zmm22" "zmm23"
           "zmm24" "zmm25" "zmm26" "zmm27" "zmm28" "zmm29" "zmm30" "zmm31");
}
