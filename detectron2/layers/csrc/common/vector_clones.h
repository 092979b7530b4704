// Loops that are compiled once for every generation of x86; the processor at hand decides which one runs.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define D2_VECTOR_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define D2_VECTOR_CLONES
#endif
