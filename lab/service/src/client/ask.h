/* One request to the service that runs beside this process. */
#ifndef LAB_ASK_H
#define LAB_ASK_H

int ask(int argc, char **argv);

#endif
