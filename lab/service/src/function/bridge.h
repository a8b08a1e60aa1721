/* The bridge mode: the service as a function of the Lambda Runtime API. */
#ifndef LAB_BRIDGE_H
#define LAB_BRIDGE_H

int bridge(int argc, char **argv);

#endif
