/* A clock for qemu-img in tests: every look at the time that a thread has computed finds half a second more.

   QEMU measures for a second or two how quick a machine is before it makes a slot of LUKS. With this it makes slots in
   milliseconds; all else that it does is real. Built and preloaded by tests/volume. */

#include <string.h>
#include <sys/resource.h>

int getrusage(int who, struct rusage *usage)
{
    static __thread long looks;

    (void)who;
    memset(usage, 0, sizeof *usage);
    looks++;
    usage->ru_utime.tv_sec = looks * 6 / 10;
    usage->ru_utime.tv_usec = looks * 600000 % 1000000;
    return 0;
}
