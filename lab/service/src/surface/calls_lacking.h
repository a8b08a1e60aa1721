/* The calls of the reviewed table's first part that some machine's kernel, or its C library's headers, have not under that
 * name: there they get no number, and are neither tried nor told. Read after <sys/syscall.h>. A name that is lacking here
 * fails to compile for that machine (tests/unit/service/test_machines.py compiles for each). */
#ifndef LAB_SURFACE_CALLS_LACKING_H
#define LAB_SURFACE_CALLS_LACKING_H

#define LACKS (-1)

#ifndef SYS_accept /* i386, s390x: accept4, or socketcall */
#define SYS_accept LACKS
#endif
#ifndef SYS_clock_getres /* 32 bits: clock_getres_time64 */
#define SYS_clock_getres LACKS
#endif
#ifndef SYS_clock_gettime /* 32 bits */
#define SYS_clock_gettime LACKS
#endif
#ifndef SYS_clock_nanosleep /* 32 bits */
#define SYS_clock_nanosleep LACKS
#endif
#ifndef SYS_clock_settime /* 32 bits */
#define SYS_clock_settime LACKS
#endif
#ifndef SYS_fadvise64 /* arm: arm_fadvise64_64 */
#define SYS_fadvise64 LACKS
#endif
#ifndef SYS_fstat /* loongarch64: statx */
#define SYS_fstat LACKS
#endif
#ifndef SYS_getrlimit /* loongarch64, arm: prlimit64 */
#define SYS_getrlimit LACKS
#endif
#ifndef SYS_gettimeofday /* 32 bits */
#define SYS_gettimeofday LACKS
#endif
#ifndef SYS_kexec_file_load /* i386 */
#define SYS_kexec_file_load LACKS
#endif
#ifndef SYS_mmap /* arm: mmap2 */
#define SYS_mmap LACKS
#endif
#ifndef SYS_newfstatat /* 32 bits: fstatat64; loongarch64: statx */
#define SYS_newfstatat LACKS
#endif
#ifndef SYS_renameat /* riscv64, loongarch64: renameat2 */
#define SYS_renameat LACKS
#endif
#ifndef SYS_semop /* i386, s390x, powerpc: semtimedop, or ipc */
#define SYS_semop LACKS
#endif
#ifndef SYS_semtimedop /* i386: semtimedop_time64, or ipc */
#define SYS_semtimedop LACKS
#endif
#ifndef SYS_setrlimit /* loongarch64: prlimit64 */
#define SYS_setrlimit LACKS
#endif
#ifndef SYS_settimeofday /* 32 bits */
#define SYS_settimeofday LACKS
#endif
#ifndef SYS_sync_file_range /* arm, powerpc: sync_file_range2 */
#define SYS_sync_file_range LACKS
#endif
#ifndef SYS_timer_gettime /* 32 bits */
#define SYS_timer_gettime LACKS
#endif
#ifndef SYS_timer_settime /* 32 bits */
#define SYS_timer_settime LACKS
#endif
#ifndef SYS_timerfd_gettime /* 32 bits */
#define SYS_timerfd_gettime LACKS
#endif
#ifndef SYS_timerfd_settime /* 32 bits */
#define SYS_timerfd_settime LACKS
#endif

#endif
