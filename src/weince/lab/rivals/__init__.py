from weince.lab.rivals.registry import *
