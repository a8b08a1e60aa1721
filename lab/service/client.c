/* The client mode; see the bottom of the file. */
#include "service.h"

int client(int argc, char **argv)
{
    (void)argc;
    complain(argv[1], "unknown command");
    return 2;
}
