/* The client mode: load on a service, and a watch of its health. */
#ifndef LAB_LOAD_AND_WATCH_H
#define LAB_LOAD_AND_WATCH_H

int load_and_watch(int argc, char **argv);

#endif
